// SPDX-License-Identifier: GPL-2.0-only
/*
 * hv_synthrdp: Hyper-V Enhanced Session (SynthRdp) for Linux guests
 *
 * The host offers a control channel, on which a protocol version is agreed,
 * and a data channel for each session, which carries RDP in the clear.
 */

#include <linux/hyperv.h>
#include <linux/module.h>

#include "compat.h"
#include "control.h"
#include "data.h"
#include "protocol.h"

static bool enabled = true;
module_param(enabled, bool, 0444);
MODULE_PARM_DESC(enabled,
		 "Tell the host that the guest takes Enhanced Sessions (default: on)");

static bool is_control(const struct hv_device *hdev)
{
	static const guid_t class = SYNTHRDP_CONTROL_CLASS;

	return guid_equal(&hdev->dev_type, &class);
}

static int synthrdp_probe(struct hv_device *hdev,
			  const struct hv_vmbus_device_id *id)
{
	if (is_control(hdev))
		return synthrdp_control_probe(hdev, enabled);

	return synthrdp_data_probe(hdev);
}

static void synthrdp_remove(struct hv_device *hdev)
{
	if (is_control(hdev))
		synthrdp_control_remove(hdev);
	else
		synthrdp_data_remove(hdev);
}

SYNTHRDP_DEFINE_REMOVE(synthrdp_remove)

static int synthrdp_suspend(struct hv_device *hdev)
{
	if (is_control(hdev))
		return synthrdp_control_suspend(hdev);

	return synthrdp_data_suspend(hdev);
}

static int synthrdp_resume(struct hv_device *hdev)
{
	if (is_control(hdev))
		return synthrdp_control_resume(hdev);

	return synthrdp_data_resume(hdev);
}

static const struct hv_vmbus_device_id synthrdp_id_table[] = {
	{ .guid = SYNTHRDP_CONTROL_CLASS },
	{ .guid = SYNTHRDP_DATA_CLASS },
	{ }
};
MODULE_DEVICE_TABLE(vmbus, synthrdp_id_table);

static struct hv_driver synthrdp_driver = {
	.name		= KBUILD_MODNAME,
	.id_table	= synthrdp_id_table,
	.probe		= synthrdp_probe,
	.remove		= synthrdp_remove_op,
	.suspend	= synthrdp_suspend,
	.resume		= synthrdp_resume,
	.driver = {
		.probe_type = PROBE_PREFER_ASYNCHRONOUS,
	},
};

static int __init synthrdp_init(void)
{
	int ret;

	ret = synthrdp_data_init();
	if (ret)
		return ret;

	ret = vmbus_driver_register(&synthrdp_driver);
	if (ret)
		synthrdp_data_exit();

	return ret;
}

static void __exit synthrdp_exit(void)
{
	vmbus_driver_unregister(&synthrdp_driver);
	synthrdp_data_exit();
}

module_init(synthrdp_init);
module_exit(synthrdp_exit);

MODULE_DESCRIPTION("Hyper-V Enhanced Session (SynthRdp) driver");
MODULE_LICENSE("GPL");
