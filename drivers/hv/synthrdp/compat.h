/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernel versions; nothing else here asks for one.
 */
#ifndef _SYNTHRDP_COMPAT_H
#define _SYNTHRDP_COMPAT_H

#include <linux/device.h>
#include <linux/hyperv.h>
#include <linux/module.h>
#include <linux/version.h>

/*
 * hv_driver.remove() returns nothing since 6.3, and an int that nobody looked
 * at before. SYNTHRDP_DEFINE_REMOVE(fn) makes fn_op() of the right type.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define SYNTHRDP_DEFINE_REMOVE(fn)					\
static void fn##_op(struct hv_device *hdev)				\
{									\
	fn(hdev);							\
}
#else
#define SYNTHRDP_DEFINE_REMOVE(fn)					\
static int fn##_op(struct hv_device *hdev)				\
{									\
	fn(hdev);							\
	return 0;							\
}
#endif

/* class_create() does not ask for the module since 6.4. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define synthrdp_class_create(name)	class_create(name)
#else
#define synthrdp_class_create(name)	class_create(THIS_MODULE, name)
#endif

#endif /* _SYNTHRDP_COMPAT_H */
