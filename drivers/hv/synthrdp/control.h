/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The control channel: version negotiation and the on/off switch.
 */
#ifndef _SYNTHRDP_CONTROL_H
#define _SYNTHRDP_CONTROL_H

#include <linux/types.h>

struct hv_device;

int synthrdp_control_probe(struct hv_device *hdev, bool enabled);
void synthrdp_control_remove(struct hv_device *hdev);
int synthrdp_control_suspend(struct hv_device *hdev);
int synthrdp_control_resume(struct hv_device *hdev);

#endif /* _SYNTHRDP_CONTROL_H */
