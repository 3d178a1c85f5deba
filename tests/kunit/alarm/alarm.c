// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on purpose, one for each check that the debug kernels have: loaded
 * with fault=NAME, the module commits that one. What does not raise an alarm
 * here would not raise one for the driver either.
 */

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *fault = "";
module_param(fault, charp, 0444);
MODULE_PARM_DESC(fault, "Which fault to commit");

/* Keeps the compiler from seeing through the faults */
static void *hidden(void *pointer)
{
	OPTIMIZER_HIDE_VAR(pointer);

	return pointer;
}

static void use_after_free(void)
{
	char *memory = hidden(kzalloc(64, GFP_KERNEL));

	kfree(memory);
	memory = hidden(memory);
	WRITE_ONCE(memory[8], 1);
}

static void beyond_the_end(void)
{
	char *memory = hidden(kzalloc(64, GFP_KERNEL));

	WRITE_ONCE(memory[64], 1);
	kfree(memory);
}

static void leak(void)
{
	int i;

	/* More than one: a stale register or stack slot may look like a use. */
	for (i = 0; i < 16; i++)
		hidden(kzalloc(256, GFP_KERNEL));
}

static void shift_too_far(void)
{
	static int bits = 40;

	pr_info("%d\n", 1 << READ_ONCE(bits));
}

static void lock_order(void)
{
	static DEFINE_MUTEX(first);
	static DEFINE_MUTEX(second);

	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void sleep_in_atomic(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	kfree(kmalloc(8, GFP_KERNEL));
	spin_unlock(&lock);
}

static void processor_of_any(void)
{
	pr_info("%d\n", smp_processor_id());
}

static void never_called(struct timer_list *timer)
{
}

static void free_active_timer(void)
{
	struct timer_list *timer = kzalloc(sizeof(*timer), GFP_KERNEL);

	timer_setup(timer, never_called, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	kfree(timer);
}

static void never_released(struct device *dev)
{
}

/* Right only if nobody else holds a reference, on which nobody can rely */
static void free_after_put(void)
{
	struct device *dev = kzalloc(sizeof(*dev), GFP_KERNEL);

	device_initialize(dev);
	dev->release = never_released;
	put_device(dev);
	kfree(dev);
}

static void delete_twice(void)
{
	static LIST_HEAD(list);
	struct list_head *entry = kzalloc(sizeof(*entry), GFP_KERNEL);

	list_add(entry, &list);
	list_del(entry);
	list_del(entry);
	kfree(entry);
}

static int shared;

static int count_on(void *unused)
{
	while (!kthread_should_stop()) {
		shared++;
		cond_resched();
	}

	return 0;
}

static void race(void)
{
	struct task_struct *threads[2];
	int i;

	for (i = 0; i < 2; i++)
		threads[i] = kthread_run(count_on, NULL, "alarm%d", i);
	msleep(2000);
	for (i = 0; i < 2; i++)
		if (!IS_ERR(threads[i]))
			kthread_stop(threads[i]);
}

static const struct {
	const char *name;
	void (*commit)(void);
} faults[] = {
#define FAULT(_name) { #_name, _name }
	FAULT(use_after_free),
	FAULT(beyond_the_end),
	FAULT(leak),
	FAULT(shift_too_far),
	FAULT(lock_order),
	FAULT(sleep_in_atomic),
	FAULT(processor_of_any),
	FAULT(free_active_timer),
	FAULT(free_after_put),
	FAULT(delete_twice),
	FAULT(race),
};

static int __init commit_fault(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(faults); i++) {
		if (!strcmp(fault, faults[i].name)) {
			faults[i].commit();
			return 0;
		}
	}

	return -EINVAL;
}

static void __exit leave(void)
{
}

module_init(commit_fault);
module_exit(leave);

MODULE_DESCRIPTION("Faults on purpose");
MODULE_LICENSE("GPL");
