/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Data channels: one character device each.
 */
#ifndef _SYNTHRDP_DATA_H
#define _SYNTHRDP_DATA_H

struct hv_device;

int synthrdp_data_init(void);
void synthrdp_data_exit(void);

int synthrdp_data_probe(struct hv_device *hdev);
void synthrdp_data_remove(struct hv_device *hdev);
int synthrdp_data_suspend(struct hv_device *hdev);
int synthrdp_data_resume(struct hv_device *hdev);

#endif /* _SYNTHRDP_DATA_H */
