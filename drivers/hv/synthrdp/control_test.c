// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite of the control channel's state machine, with a host, a clock and
 * a workqueue that do what the test says: each state meets each event.
 */

/* The events belong to the driver's own module. */
#define NOTRACE

#include <kunit/test.h>
#include <linux/device.h>
#include <linux/hyperv.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "pipe.h"

static unsigned long fake_jiffies;

static bool fake_queue(struct workqueue_struct *wq, struct delayed_work *work,
		       unsigned long delay);
static bool fake_requeue(struct workqueue_struct *wq, struct delayed_work *work,
			 unsigned long delay);
static bool fake_flush(struct delayed_work *work);
static bool fake_cancel(struct delayed_work *work);
static int fake_uevent(struct kobject *kobj, enum kobject_action action,
		       char *env[]);
static void fake_warn(struct device *dev, const char *format, const char *text);
static int fake_create_group(struct kobject *kobj,
			     const struct attribute_group *group);
static void fake_remove_group(struct kobject *kobj,
			      const struct attribute_group *group);

#define jiffies			fake_jiffies
#define queue_delayed_work	fake_queue
#define mod_delayed_work	fake_requeue
#define flush_delayed_work	fake_flush
#define cancel_delayed_work_sync fake_cancel
#define kobject_uevent_env	fake_uevent
#define sysfs_create_group	fake_create_group
#define sysfs_remove_group	fake_remove_group
#undef dev_warn
#define dev_warn		fake_warn

#include "protocol.c"
#include "control.c"

/* What a host may say: a message, or a packet that is not even one */
struct saying {
	const char *name;
	int len;		/* -EPROTO: a malformed packet */
	u8 bytes[24];
};

static const struct saying accept = {
	"accept", 17, { 2, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2 } };
static const struct saying reject = {
	"reject", 17, { 2, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0 } };
static const struct saying other_version = {
	"version", 17, { 2, 0, 0, 0, 17, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2 } };
static const struct saying create = { "create", 24, { 3 } };
static const struct saying unknown = { "unknown", 9, { 4 } };
static const struct saying error = { "error", 12, { 0 } };
static const struct saying request = { "request", 16, { 1 } };
static const struct saying short_answer = { "short answer", 16, { 2 } };
static const struct saying short_create = { "short create", 23, { 3 } };
static const struct saying half_header = { "half a header", 7, { 2 } };
static const struct saying nothing = { "empty", 0 };
static const struct saying malformed = { "malformed", -EPROTO };

/**
 * struct fake - the machine around the control device
 * @hdev: the device
 * @channel: its channel
 * @ctrl: the driver's own
 * @pending: the work is queued
 * @due: and is to run then
 * @running: the work runs: who waits for it can do so in another context only
 * @open: the channel is open
 * @opens: how often it was opened
 * @open_result: what opening comes to
 * @send_result: what sending comes to
 * @at_open: what happens while the channel is being opened for the first time
 * @at_send: what it says before sending is over
 * @at_close: what it says while the channel is being closed
 * @said: what is in the ring
 * @said_count: how much of that there is
 * @said_next: where reading goes on
 * @requests: version requests that were sent
 * @log: states that were announced
 * @warnings: messages to the kernel log
 * @group_result: what creating the attributes comes to
 * @groups: attribute groups that are there
 */
struct fake {
	struct hv_device hdev;
	struct vmbus_channel channel;
	struct synthrdp_control *ctrl;
	bool pending;
	unsigned long due;
	bool running;
	bool open;
	int opens;
	int open_result;
	int send_result;
	const struct step *at_open;
	const struct saying *at_send;
	const struct saying *at_close;
	const struct saying *said[8];
	int said_count;
	int said_next;
	int requests;
	char log[256];
	int warnings;
	int group_result;
	int groups;
};

/* Of the test that runs; there is one at a time. */
static struct fake *fake_now;

static void take(const struct step *step);

static bool fake_queue(struct workqueue_struct *wq, struct delayed_work *work,
		       unsigned long delay)
{
	struct fake *fake = fake_now;

	if (fake->pending)
		return false;
	fake->pending = true;
	fake->due = fake_jiffies + delay;

	return true;
}

static bool fake_requeue(struct workqueue_struct *wq, struct delayed_work *work,
			 unsigned long delay)
{
	bool was_pending = fake_now->pending;

	fake_now->pending = false;
	fake_queue(wq, work, delay);

	return was_pending;
}

static bool fake_flush(struct delayed_work *work)
{
	if (!fake_now->pending || fake_now->running)
		return false;
	fake_now->pending = false;
	fake_now->running = true;
	work->work.func(&work->work);
	fake_now->running = false;

	return true;
}

static bool fake_cancel(struct delayed_work *work)
{
	bool was_pending = fake_now->pending;

	fake_now->pending = false;

	return was_pending;
}

static int fake_uevent(struct kobject *kobj, enum kobject_action action,
		       char *env[])
{
	struct fake *fake = fake_now;
	size_t len = strlen(fake->log);

	snprintf(fake->log + len, sizeof(fake->log) - len, " %s",
		 strchr(env[0], '=') + 1);

	return action == KOBJ_CHANGE ? 0 : -EINVAL;
}

static void fake_warn(struct device *dev, const char *format, const char *text)
{
	fake_now->warnings++;
}

static int fake_create_group(struct kobject *kobj,
			     const struct attribute_group *group)
{
	if (!fake_now->group_result)
		fake_now->groups++;

	return fake_now->group_result;
}

static void fake_remove_group(struct kobject *kobj,
			      const struct attribute_group *group)
{
	fake_now->groups--;
}

static void forget_sayings(struct fake *fake)
{
	fake->said_count = 0;
	fake->said_next = 0;
}

/* The host says something and signals; in softirq context, as it would be. */
static void say(const struct saying *what)
{
	struct fake *fake = fake_now;

	if (!what)
		return;
	if (fake->said_next == fake->said_count)
		forget_sayings(fake);
	fake->said[fake->said_count++] = what;
	local_bh_disable();
	control_on_channel(fake->ctrl);
	local_bh_enable();
}

int synthrdp_pipe_open(struct synthrdp_pipe *pipe,
		       struct vmbus_channel *channel,
		       struct synthrdp_counters *counters,
		       enum hv_callback_mode mode,
		       void (*callback)(void *context), void *context)
{
	struct fake *fake = fake_now;
	const struct step *at_open = fake->at_open;

	fake->opens++;
	forget_sayings(fake);
	fake->at_open = NULL;
	if (at_open)
		take(at_open);
	if (fake->open_result)
		return fake->open_result;

	WARN_ON(fake->open);
	fake->open = true;
	pipe->tx_packet = kzalloc(sizeof(*pipe->tx_packet) + 64, GFP_KERNEL);

	return pipe->tx_packet ? 0 : -ENOMEM;
}

void synthrdp_pipe_close(struct synthrdp_pipe *pipe)
{
	struct fake *fake = fake_now;

	WARN_ON(!fake->open);
	say(fake->at_close);
	fake->open = false;
	forget_sayings(fake);
	kfree(pipe->tx_packet);
	pipe->tx_packet = NULL;
}

int synthrdp_pipe_peek(struct synthrdp_pipe *pipe, const void **data)
{
	struct fake *fake = fake_now;

	if (fake->said_next == fake->said_count)
		return -EAGAIN;
	*data = fake->said[fake->said_next]->bytes;

	return fake->said[fake->said_next]->len;
}

void synthrdp_pipe_consume(struct synthrdp_pipe *pipe, u32 len)
{
	fake_now->said_next++;
}

void synthrdp_pipe_publish(struct synthrdp_pipe *pipe)
{
}

int synthrdp_pipe_send(struct synthrdp_pipe *pipe, u32 len)
{
	struct fake *fake = fake_now;

	if (len == 16 && pipe->tx_packet->data[0] == SYNTHRDP_MSG_VERSION_REQUEST)
		fake->requests++;
	say(fake->at_send);

	return fake->send_result;
}

/* Let so much time pass, and the work do what is due, if it does not wait. */
static void pass(unsigned long time)
{
	struct fake *fake = fake_now;
	unsigned long end = fake_jiffies + time;
	int runs = 0;

	while (!fake->running && fake->pending &&
	       time_before_eq(fake->due, end)) {
		if (time_after(fake->due, fake_jiffies))
			fake_jiffies = fake->due;
		fake_flush(&fake->ctrl->work);
		if (WARN_ON(++runs > 10000))
			break;
	}
	if (time_before(fake_jiffies, end))
		fake_jiffies = end;
}

static void switch_to(bool on)
{
	enabled_store(&fake_now->hdev.device, NULL, on ? "1\n" : "0\n", 2);
	if (on)
		pass(0);
}

static const char *shown(ssize_t (*show)(struct device *dev,
					 struct device_attribute *attr,
					 char *buf))
{
	static char page[PAGE_SIZE] __aligned(PAGE_SIZE);

	show(&fake_now->hdev.device, NULL, page);

	return page;
}

#define EXPECT_STATE(test, state)					\
	KUNIT_EXPECT_STREQ(test, shown(state_show), state "\n")

/* What was announced since the last such look */
#define EXPECT_ANNOUNCED(test, states)					\
	do {								\
		KUNIT_EXPECT_STREQ(test, fake_now->log, states);	\
		fake_now->log[0] = '\0';				\
	} while (0)

static int control_init(struct kunit *test)
{
	struct fake *fake;

	fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fake);
	fake->hdev.channel = &fake->channel;
	test->priv = fake;
	fake_now = fake;
	/* As after boot: jiffies wrap around soon. */
	fake_jiffies = -300 * HZ;

	KUNIT_ASSERT_EQ(test, synthrdp_control_probe(&fake->hdev, false), 0);
	fake->ctrl = hv_get_drvdata(&fake->hdev);
	pass(0);

	return 0;
}

static void control_exit(struct kunit *test)
{
	struct fake *fake = test->priv;

	if (fake && fake->ctrl)
		synthrdp_control_remove(&fake->hdev);
}

/* The states that last, and how to get there from the start; and one that does not */

enum place { DISABLED, NEGOTIATING, READY, REJECTED, FAILED, OPENING };

static const char * const place_names[] = {
	"disabled", "negotiating", "ready", "rejected", "failed", "opening",
};

static void go(enum place place)
{
	struct fake *fake = fake_now;

	if (place == DISABLED)
		return;
	if (place == FAILED)
		fake->open_result = -ENODEV;
	switch_to(true);
	fake->open_result = 0;
	if (place == READY)
		say(&accept);
	else if (place == REJECTED)
		say(&reject);
	pass(0);
}

/* What happens to it */

enum event {
	SAY,		/* the host says something */
	SWITCH_ON,
	SWITCH_OFF,
	SUSPEND,
	SUSPEND_RESUME,
	SECONDS,	/* the host is silent so long */
};

struct step {
	const char *name;
	enum place from;
	enum event event;
	const struct saying *saying;
	int seconds;
	enum place to;
};

static const struct step steps[] = {
	/* While the host is waited for: nobody has asked anything yet */
	{ "", OPENING, SAY, &accept, 0, FAILED },
	{ "", OPENING, SAY, &reject, 0, FAILED },
	{ "", OPENING, SAY, &other_version, 0, FAILED },
	{ "", OPENING, SAY, &create, 0, FAILED },
	{ "", OPENING, SAY, &unknown, 0, NEGOTIATING },
	{ "", OPENING, SAY, &error, 0, FAILED },
	{ "", OPENING, SAY, &request, 0, FAILED },
	{ "", OPENING, SAY, &short_answer, 0, FAILED },
	{ "", OPENING, SAY, &short_create, 0, FAILED },
	{ "", OPENING, SAY, &half_header, 0, FAILED },
	{ "", OPENING, SAY, &nothing, 0, FAILED },
	{ "", OPENING, SAY, &malformed, 0, FAILED },
	{ "on", OPENING, SWITCH_ON, NULL, 0, NEGOTIATING },
	{ "off", OPENING, SWITCH_OFF, NULL, 0, DISABLED },
	{ "sleep", OPENING, SUSPEND, NULL, 0, DISABLED },
	{ "wake", OPENING, SUSPEND_RESUME, NULL, 0, NEGOTIATING },
	{ "an hour", OPENING, SECONDS, NULL, 3600, NEGOTIATING },
	/* The answer, and what may come instead of it */
	{ "", NEGOTIATING, SAY, &accept, 0, READY },
	{ "", NEGOTIATING, SAY, &reject, 0, REJECTED },
	{ "", NEGOTIATING, SAY, &other_version, 0, FAILED },
	{ "", NEGOTIATING, SAY, &create, 0, FAILED },
	{ "", NEGOTIATING, SAY, &unknown, 0, NEGOTIATING },
	{ "", NEGOTIATING, SAY, &error, 0, FAILED },
	{ "", NEGOTIATING, SAY, &request, 0, FAILED },
	{ "", NEGOTIATING, SAY, &short_answer, 0, FAILED },
	{ "", NEGOTIATING, SAY, &short_create, 0, FAILED },
	{ "", NEGOTIATING, SAY, &half_header, 0, FAILED },
	{ "", NEGOTIATING, SAY, &nothing, 0, FAILED },
	{ "", NEGOTIATING, SAY, &malformed, 0, FAILED },
	/* Once it is agreed */
	{ "", READY, SAY, &accept, 0, FAILED },
	{ "", READY, SAY, &reject, 0, FAILED },
	{ "", READY, SAY, &other_version, 0, FAILED },
	{ "", READY, SAY, &create, 0, READY },
	{ "", READY, SAY, &unknown, 0, READY },
	{ "", READY, SAY, &error, 0, FAILED },
	{ "", READY, SAY, &request, 0, FAILED },
	{ "", READY, SAY, &short_answer, 0, FAILED },
	{ "", READY, SAY, &short_create, 0, FAILED },
	{ "", READY, SAY, &half_header, 0, FAILED },
	{ "", READY, SAY, &nothing, 0, FAILED },
	{ "", READY, SAY, &malformed, 0, FAILED },
	/* The switch */
	{ "on", DISABLED, SWITCH_ON, NULL, 0, NEGOTIATING },
	{ "on", NEGOTIATING, SWITCH_ON, NULL, 0, NEGOTIATING },
	{ "on", READY, SWITCH_ON, NULL, 0, READY },
	{ "on", REJECTED, SWITCH_ON, NULL, 0, NEGOTIATING },
	{ "on", FAILED, SWITCH_ON, NULL, 0, NEGOTIATING },
	{ "off", DISABLED, SWITCH_OFF, NULL, 0, DISABLED },
	{ "off", NEGOTIATING, SWITCH_OFF, NULL, 0, DISABLED },
	{ "off", READY, SWITCH_OFF, NULL, 0, DISABLED },
	{ "off", REJECTED, SWITCH_OFF, NULL, 0, DISABLED },
	{ "off", FAILED, SWITCH_OFF, NULL, 0, DISABLED },
	/* Hibernation, seen from both sides of it */
	{ "sleep", DISABLED, SUSPEND, NULL, 0, DISABLED },
	{ "sleep", NEGOTIATING, SUSPEND, NULL, 0, DISABLED },
	{ "sleep", READY, SUSPEND, NULL, 0, DISABLED },
	{ "sleep", REJECTED, SUSPEND, NULL, 0, DISABLED },
	{ "sleep", FAILED, SUSPEND, NULL, 0, DISABLED },
	{ "wake", DISABLED, SUSPEND_RESUME, NULL, 0, DISABLED },
	{ "wake", NEGOTIATING, SUSPEND_RESUME, NULL, 0, NEGOTIATING },
	{ "wake", READY, SUSPEND_RESUME, NULL, 0, NEGOTIATING },
	{ "wake", REJECTED, SUSPEND_RESUME, NULL, 0, NEGOTIATING },
	{ "wake", FAILED, SUSPEND_RESUME, NULL, 0, NEGOTIATING },
	/* Time */
	{ "an hour", DISABLED, SECONDS, NULL, 3600, DISABLED },
	{ "9 s", NEGOTIATING, SECONDS, NULL, 9, NEGOTIATING },
	{ "10 s", NEGOTIATING, SECONDS, NULL, 10, FAILED },
	{ "an hour", READY, SECONDS, NULL, 3600, READY },
	{ "an hour", REJECTED, SECONDS, NULL, 3600, REJECTED },
	{ "no time", FAILED, SECONDS, NULL, 0, FAILED },
	{ "1 s", FAILED, SECONDS, NULL, 1, NEGOTIATING },
};

static void step_name(const struct step *step, char *name)
{
	snprintf(name, KUNIT_PARAM_DESC_SIZE, "%s, %s%s",
		 place_names[step->from], step->name,
		 step->saying ? step->saying->name : "");
}

KUNIT_ARRAY_PARAM(steps, steps, step_name);

static void take(const struct step *step)
{
	struct fake *fake = fake_now;

	switch (step->event) {
	case SAY:
		say(step->saying);
		break;
	case SWITCH_ON:
		switch_to(true);
		break;
	case SWITCH_OFF:
		switch_to(false);
		break;
	case SUSPEND:
	case SUSPEND_RESUME:
		synthrdp_control_suspend(&fake->hdev);
		if (step->event == SUSPEND_RESUME)
			synthrdp_control_resume(&fake->hdev);
		break;
	case SECONDS:
		break;
	}
	pass(step->seconds * HZ);
}

static const char *expected_line(enum place place)
{
	static char line[16];

	snprintf(line, sizeof(line), "%s\n", place_names[place]);

	return line;
}

/* What holds in each state whatever led there */
static void expect_sound(struct kunit *test, enum place place)
{
	struct fake *fake = test->priv;

	KUNIT_EXPECT_STREQ(test, shown(state_show), expected_line(place));
	KUNIT_EXPECT_STREQ(test, shown(version_show),
			   place == READY ? "1.0\n" : "none\n");
	KUNIT_EXPECT_EQ(test, fake->open,
			place == NEGOTIATING || place == READY);
	/* These two end by themselves, the others wait for somebody. */
	KUNIT_EXPECT_EQ(test, fake->pending,
			place == NEGOTIATING || place == FAILED);
	if (fake->pending)
		KUNIT_EXPECT_TRUE(test, time_before_eq(fake->due,
						       fake_jiffies + 60 * HZ));
}

/* Out of the state that @step has led to, the short way and the long one */
static void expect_way_out(struct kunit *test, const struct step *step)
{
	struct fake *fake = test->priv;

	if (step->event == SUSPEND)
		synthrdp_control_resume(&fake->hdev);
	switch_to(true);
	if (strcmp(shown(state_show), "ready\n"))
		say(&accept);
	pass(0);
	expect_sound(test, READY);
	switch_to(false);
	expect_sound(test, DISABLED);
	switch_to(true);
	say(&accept);
	pass(0);
	expect_sound(test, READY);
}

/* It happens while the work waits for the host to open the channel. */
static void open_and_take(const struct step *step)
{
	fake_now->at_open = step;
	switch_to(true);
}

static void each_event_in_each_state(struct kunit *test)
{
	const struct step *step = test->param_value;

	if (step->from == OPENING) {
		open_and_take(step);
	} else {
		go(step->from);
		expect_sound(test, step->from);
		take(step);
	}
	expect_sound(test, step->to);
	expect_way_out(test, step);
}

/* The same while the channel is opened in vain */
static void each_event_while_refused(struct kunit *test)
{
	struct fake *fake = test->priv;
	const struct step *step;

	for (step = steps; step->from == OPENING; step++) {
		kunit_info(test, "%s%s", step->name,
			   step->saying ? step->saying->name : "");
		EXPECT_ANNOUNCED(test, "");
		fake->open_result = -ENODEV;
		open_and_take(step);
		expect_sound(test, step->to == DISABLED ? DISABLED : FAILED);
		if (fake->pending && step->event == SAY)
			KUNIT_EXPECT_EQ(test, fake->due - fake_jiffies,
					(unsigned long)HZ);
		fake->open_result = 0;
		expect_way_out(test, step);
		switch_to(false);
		fake->log[0] = '\0';
	}
}

/*
 * Removal may come in each state, and while the machine sleeps; nothing may be
 * left behind, and nothing touched when the machine falls asleep and wakes up.
 */
static void removed_in_each_state(struct kunit *test)
{
	struct fake *fake = test->priv;
	enum place place;
	int i;

	for (i = 0; i < 2 * (FAILED - DISABLED + 1); i++) {
		place = DISABLED + i / 2;
		go(place);
		expect_sound(test, place);
		if (i % 2)
			synthrdp_control_suspend(&fake->hdev);
		/* What the host says last must not queue the work again. */
		fake->at_close = &error;
		synthrdp_control_remove(&fake->hdev);
		fake->at_close = NULL;
		KUNIT_EXPECT_EQ(test, synthrdp_control_suspend(&fake->hdev), 0);
		KUNIT_EXPECT_EQ(test, synthrdp_control_resume(&fake->hdev), 0);
		KUNIT_EXPECT_FALSE(test, fake->open);
		KUNIT_EXPECT_FALSE(test, fake->pending);
		KUNIT_EXPECT_EQ(test, fake->groups, 0);
		fake->ctrl = NULL;
		KUNIT_ASSERT_EQ(test, synthrdp_control_probe(&fake->hdev, false),
				0);
		fake->ctrl = hv_get_drvdata(&fake->hdev);
		pass(0);
	}
}

static void probe_that_fails(struct kunit *test)
{
	struct fake *fake = test->priv;

	synthrdp_control_remove(&fake->hdev);
	fake->ctrl = NULL;
	fake->group_result = -ENOMEM;
	KUNIT_EXPECT_EQ(test, synthrdp_control_probe(&fake->hdev, true),
			-ENOMEM);
	KUNIT_EXPECT_FALSE(test, fake->pending);
}

static void enabled_from_the_start(struct kunit *test)
{
	struct fake *fake = test->priv;

	EXPECT_ANNOUNCED(test, "");
	synthrdp_control_remove(&fake->hdev);
	KUNIT_ASSERT_EQ(test, synthrdp_control_probe(&fake->hdev, true), 0);
	fake->ctrl = hv_get_drvdata(&fake->hdev);
	/* Not in probe, which must not wait for the host. */
	KUNIT_EXPECT_EQ(test, fake->opens, 0);
	pass(0);
	KUNIT_EXPECT_EQ(test, fake->requests, 1);
	say(&accept);
	pass(0);
	EXPECT_ANNOUNCED(test, " opening negotiating ready");
	KUNIT_EXPECT_STREQ(test, shown(enabled_show), "1\n");
}

static void writes_that_make_no_sense(struct kunit *test)
{
	struct device *dev = &fake_now->hdev.device;

	KUNIT_EXPECT_EQ(test, enabled_store(dev, NULL, "2\n", 2), -EINVAL);
	KUNIT_EXPECT_EQ(test, enabled_store(dev, NULL, "\n", 1), -EINVAL);
	KUNIT_EXPECT_STREQ(test, shown(enabled_show), "0\n");
	KUNIT_EXPECT_EQ(test, fake_now->opens, 0);
}

/* 1 s, 2 s, 4 s, up to 60 s; from 1 s again after a ready or a fresh start */
static void pauses_grow(struct kunit *test)
{
	static const int pauses[] = { 1, 2, 4, 8, 16, 32, 60, 60, 60 };
	struct fake *fake = test->priv;
	int round, i;

	for (round = 0; round < 3; round++) {
		fake->open_result = -ENODEV;
		if (round == 1) {
			/* It works once, and then the host goes wrong. */
			fake->open_result = 0;
			pass(fake->due - fake_jiffies);
			say(&accept);
			pass(0);
			EXPECT_STATE(test, "ready");
			fake->open_result = -ENODEV;
			say(&error);
			pass(0);
		} else {
			switch_to(true);
		}
		for (i = 0; i < ARRAY_SIZE(pauses); i++) {
			EXPECT_STATE(test, "failed");
			KUNIT_EXPECT_EQ_MSG(test, fake->due - fake_jiffies,
					    (unsigned long)pauses[i] * HZ,
					    "pause %d of round %d", i, round);
			pass(pauses[i] * HZ);
		}
	}
}

/* Silence costs 10 s and a pause, again and again; no answer comes too late. */
static void silence(struct kunit *test)
{
	struct fake *fake = test->priv;

	switch_to(true);
	pass(10 * HZ - 1);
	EXPECT_STATE(test, "negotiating");
	pass(1);
	EXPECT_STATE(test, "failed");
	EXPECT_ANNOUNCED(test, " opening negotiating failed");
	pass(1 * HZ);
	EXPECT_STATE(test, "negotiating");
	pass(10 * HZ + 2 * HZ);
	EXPECT_STATE(test, "negotiating");
	KUNIT_EXPECT_EQ(test, fake->requests, 3);
	pass(10 * HZ - 1);
	say(&accept);
	pass(3600 * HZ);
	EXPECT_STATE(test, "ready");
}

/* What is known of the host's trouble is said once, until somebody asks anew. */
static void warnings_come_once(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->open_result = -ENODEV;
	switch_to(true);
	pass(3600 * HZ);
	KUNIT_EXPECT_EQ(test, fake->warnings, 1);
	fake->open_result = 0;
	pass(fake->due - fake_jiffies);
	EXPECT_STATE(test, "negotiating");
	pass(10 * HZ);
	KUNIT_EXPECT_EQ(test, fake->warnings, 2);
	fake->open_result = -ENODEV;
	switch_to(true);
	KUNIT_EXPECT_EQ(test, fake->warnings, 3);

	/* A device on its way out needs no explanation. */
	fake->channel.rescind = true;
	switch_to(true);
	KUNIT_EXPECT_EQ(test, fake->warnings, 3);
}

/* The answer is there before sending has returned. */
static void quick_host(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->at_send = &accept;
	switch_to(true);
	EXPECT_STATE(test, "ready");
	EXPECT_ANNOUNCED(test, " opening negotiating ready");
	pass(3600 * HZ);
	EXPECT_STATE(test, "ready");
}

/* Ready and over before the work has seen either: both are announced. */
static void quick_end(struct kunit *test)
{
	struct fake *fake = test->priv;

	switch_to(true);
	say(&accept);
	say(&create);
	say(&error);
	say(&accept);
	pass(0);
	EXPECT_ANNOUNCED(test, " opening negotiating ready failed");
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->ctrl->counters.sessions), 1);
	KUNIT_EXPECT_EQ(test, fake->due - fake_jiffies, (unsigned long)HZ);
}

/* The work comes so late that the answer's time is over: there was one. */
static void late_work(struct kunit *test)
{
	switch_to(true);
	say(&reject);
	fake_jiffies += 10 * HZ;
	pass(0);
	EXPECT_STATE(test, "rejected");
}

/* Once the verdict is out, or the channel closes, nothing counts any more. */
static void host_that_speaks_last(struct kunit *test)
{
	struct fake *fake = test->priv;
	static const struct saying *const sayings[] = {
		&accept, &reject, &error, &malformed, &create, &nothing,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(sayings); i++) {
		/* While it is closed because it failed */
		switch_to(true);
		fake->at_close = sayings[i];
		say(&error);
		pass(0);
		EXPECT_STATE(test, "failed");
		KUNIT_EXPECT_EQ(test, fake->due - fake_jiffies,
				(unsigned long)HZ);

		/* Because it is switched off */
		fake->at_close = NULL;
		switch_to(true);
		say(&accept);
		pass(0);
		fake->at_close = sayings[i];
		switch_to(false);
		pass(0);
		EXPECT_STATE(test, "disabled");
		KUNIT_EXPECT_FALSE(test, fake->pending);

		/* Because it was rejected */
		fake->at_close = NULL;
		switch_to(true);
		fake->at_close = sayings[i];
		say(&reject);
		pass(0);
		pass(3600 * HZ);
		EXPECT_STATE(test, "rejected");
		fake->at_close = NULL;
		switch_to(false);
	}
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->ctrl->counters.sessions), 0);
}

static void sending_fails(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->send_result = -ENODEV;
	switch_to(true);
	EXPECT_STATE(test, "failed");
	KUNIT_EXPECT_FALSE(test, fake->open);
	fake->send_result = 0;
	pass(1 * HZ);
	EXPECT_STATE(test, "negotiating");

	/* The same with an answer on the way */
	switch_to(false);
	fake->send_result = -EPROTO;
	fake->at_send = &accept;
	switch_to(true);
	EXPECT_STATE(test, "failed");
	KUNIT_EXPECT_FALSE(test, fake->open);
	KUNIT_EXPECT_TRUE(test, fake->pending);
}

/* The switch decides while the machine sleeps, and holds when it wakes. */
static void switched_while_asleep(struct kunit *test)
{
	struct fake *fake = test->priv;

	go(READY);
	synthrdp_control_suspend(&fake->hdev);
	switch_to(true);
	EXPECT_STATE(test, "disabled");
	switch_to(false);
	synthrdp_control_resume(&fake->hdev);
	pass(0);
	EXPECT_STATE(test, "disabled");
	synthrdp_control_suspend(&fake->hdev);
	switch_to(true);
	EXPECT_STATE(test, "disabled");
	KUNIT_EXPECT_FALSE(test, fake->open);
	synthrdp_control_resume(&fake->hdev);
	pass(0);
	EXPECT_STATE(test, "negotiating");
}

static void messages_are_counted(struct kunit *test)
{
	struct fake *fake = test->priv;
	int i;

	go(READY);
	for (i = 0; i < 5; i++) {
		say(&create);
		say(&unknown);
		say(&unknown);
	}
	pass(0);
	KUNIT_EXPECT_STREQ(test, shown(sessions_show), "5\n");
	KUNIT_EXPECT_STREQ(test, shown(rx_unknown_show), "10\n");
	KUNIT_EXPECT_STREQ(test, shown(rx_malformed_show), "0\n");
	say(&short_answer);
	pass(0);
	KUNIT_EXPECT_STREQ(test, shown(rx_malformed_show), "1\n");
	EXPECT_ANNOUNCED(test, " opening negotiating ready failed");
	KUNIT_EXPECT_EQ(test, fake->opens, 1);
}

static struct kunit_case control_cases[] = {
	KUNIT_CASE_PARAM(each_event_in_each_state, steps_gen_params),
	KUNIT_CASE(each_event_while_refused),
	KUNIT_CASE(removed_in_each_state),
	KUNIT_CASE(probe_that_fails),
	KUNIT_CASE(enabled_from_the_start),
	KUNIT_CASE(writes_that_make_no_sense),
	KUNIT_CASE(pauses_grow),
	KUNIT_CASE(silence),
	KUNIT_CASE(warnings_come_once),
	KUNIT_CASE(quick_host),
	KUNIT_CASE(quick_end),
	KUNIT_CASE(late_work),
	KUNIT_CASE(host_that_speaks_last),
	KUNIT_CASE(sending_fails),
	KUNIT_CASE(switched_while_asleep),
	KUNIT_CASE(messages_are_counted),
	{ }
};

static struct kunit_suite control_suite = {
	.name = "synthrdp_control",
	.init = control_init,
	.exit = control_exit,
	.test_cases = control_cases,
};

kunit_test_suite(control_suite);

MODULE_DESCRIPTION("KUnit suite of hv_synthrdp's control channel");
MODULE_LICENSE("GPL");
