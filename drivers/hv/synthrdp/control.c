// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control channel: version negotiation and the on/off switch.
 *
 *            switched on         opened               yes
 *  disabled ------------> opening ----> negotiating ----> ready
 *     ^                    ^   |         |       |          |
 *     | switched off       |   | refused |       | no       | malformed,
 *     | (from anywhere)    |   v         |       v          | error
 *     +------             failed <-------+    rejected      |
 *                            ^   no answer,                 |
 *                            |   malformed, error           |
 *                            +------------------------------+
 *
 * failed tries again after a while; rejected waits for somebody to write to
 * the attribute enabled.
 *
 * Two contexts share the work. The channel callback (softirq) reads what the
 * host says and judges it: it moves from negotiating to ready, or notes a
 * failure for the work. The work (process context, never twice at a time) does
 * what sleeps: it opens and closes the channel, makes all other transitions
 * and announces each state by a uevent. Nothing waits for the host in probe.
 */

#include <linux/device.h>
#include <linux/hyperv.h>
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "control.h"
#include "pipe.h"
#include "trace.h"

/*
 * How long the host may take to answer the version request. It does so at once;
 * this is for one that starts a hundred guests after a power cut.
 */
#define ANSWER_TIMEOUT	(10 * HZ)

/*
 * Pause before the next try: the first, doubled each time up to the last. A
 * service of the host that is restarted is back in a second or two; a host that
 * has no use for us is not bothered, nor its log filled, more than once a minute.
 */
#define RETRY_FIRST	(1 * HZ)
#define RETRY_LAST	(60 * HZ)

/**
 * enum control_state - as the attribute state shows it
 * @CONTROL_DISABLED: switched off, channel closed
 * @CONTROL_OPENING: waiting for the host to open the channel
 * @CONTROL_NEGOTIATING: version request sent, no answer yet
 * @CONTROL_READY: version agreed; the host may start sessions
 * @CONTROL_REJECTED: the host refused the version, channel closed
 * @CONTROL_FAILED: something went wrong, channel closed, next try is timed
 */
enum control_state {
	CONTROL_DISABLED,
	CONTROL_OPENING,
	CONTROL_NEGOTIATING,
	CONTROL_READY,
	CONTROL_REJECTED,
	CONTROL_FAILED,
};

static const char * const control_state_names[] = {
	[CONTROL_DISABLED]	= "disabled",
	[CONTROL_OPENING]	= "opening",
	[CONTROL_NEGOTIATING]	= "negotiating",
	[CONTROL_READY]		= "ready",
	[CONTROL_REJECTED]	= "rejected",
	[CONTROL_FAILED]	= "failed",
};

/**
 * enum control_cause - why a state changes
 * @CAUSE_NONE: no failure: the conversation goes on
 * @CAUSE_ON: somebody wants it on
 * @CAUSE_RETRY: the pause after a failure is over
 * @CAUSE_OPENED: the host has opened the channel
 * @CAUSE_AGREED: the host agrees to the version
 * @CAUSE_OFF: somebody wants it off
 * @CAUSE_SUSPENDED: the machine is about to hibernate
 * @CAUSE_REJECTED: the host refuses the version; this and all that follow are
 *	logged, see control_told
 * @CAUSE_NOT_OPENED: the channel cannot be opened
 * @CAUSE_NOT_SENT: the version request cannot be sent
 * @CAUSE_TIMEOUT: ANSWER_TIMEOUT is over
 * @CAUSE_MALFORMED: a packet or a message that is not sound
 * @CAUSE_UNEXPECTED: a sound message in the wrong state
 * @CAUSE_VERSION: the host agrees to something else
 * @CAUSE_ERROR: the host reports an error
 */
enum control_cause {
	CAUSE_NONE,
	CAUSE_ON,
	CAUSE_RETRY,
	CAUSE_OPENED,
	CAUSE_AGREED,
	CAUSE_OFF,
	CAUSE_SUSPENDED,
	CAUSE_REJECTED,
	CAUSE_NOT_OPENED,
	CAUSE_NOT_SENT,
	CAUSE_TIMEOUT,
	CAUSE_MALFORMED,
	CAUSE_UNEXPECTED,
	CAUSE_VERSION,
	CAUSE_ERROR,
};

static const char * const control_cause_texts[] = {
	[CAUSE_NONE]		= "none",
	[CAUSE_ON]		= "switched on",
	[CAUSE_RETRY]		= "next try",
	[CAUSE_OPENED]		= "channel opened",
	[CAUSE_AGREED]		= "the host agrees",
	[CAUSE_OFF]		= "switched off",
	[CAUSE_SUSPENDED]	= "suspended",
	[CAUSE_REJECTED]	= "the host rejects protocol version 1.0",
	[CAUSE_NOT_OPENED]	= "cannot open the control channel",
	[CAUSE_NOT_SENT]	= "cannot send the version request",
	[CAUSE_TIMEOUT]		= "no answer from the host",
	[CAUSE_MALFORMED]	= "malformed message from the host",
	[CAUSE_UNEXPECTED]	= "message from the host out of turn",
	[CAUSE_VERSION]		= "the host agrees to a version not asked for",
	[CAUSE_ERROR]		= "error message from the host",
};

/*
 * A bit for each cause that has been logged since somebody last switched on.
 * Not the device's: a host that takes its device back and offers it anew could
 * fill up the log with the same complaint.
 */
static unsigned long control_told;

/*
 * Guards the drvdata of control devices between removal, which frees what it
 * points to, and hibernation: the bus suspends and resumes devices in the noirq
 * phase, in which the device lock is not held.
 */
static DEFINE_MUTEX(controls_lock);

/**
 * struct synthrdp_control - the control device
 * @hdev: the VMBus device
 * @counters: what passed since the device appeared
 * @pipe: the channel; rx belongs to the callback, the rest to the work
 * @work: everything that sleeps
 * @is_open: @pipe is open; belongs to the work
 * @announced: state of the last uevent; belongs to the work
 * @retry: pause before the next try, in jiffies; belongs to the work
 * @deadline: when to give up on an answer, or to try again, in jiffies;
 *	belongs to the work
 * @rx_unknown: messages of a type that is not known
 * @lock: guards what follows; taken in softirq context
 * @state: where we are
 * @enabled: where we should be: in conversation with the host, or not
 * @restart: somebody asked for a fresh start
 * @suspended: as if not @enabled, until the machine resumes
 * @gone: the device is being removed: the work must not be queued any more
 * @failure: what the callback or the work found wrong in this conversation;
 *	nothing that the host says afterwards matters
 */
struct synthrdp_control {
	struct hv_device *hdev;
	struct synthrdp_counters counters;
	struct synthrdp_pipe pipe;

	struct delayed_work work;
	bool is_open;
	enum control_state announced;
	unsigned long retry;
	unsigned long deadline;

	atomic64_t rx_unknown;

	spinlock_t lock;	/* guards all that follows */
	enum control_state state;
	bool enabled;
	bool restart;
	bool suspended;
	bool gone;
	enum control_cause failure;
};

/* Have the work look at things now. */
static void control_kick(struct synthrdp_control *ctrl)
{
	lockdep_assert_held(&ctrl->lock);

	if (!ctrl->gone)
		mod_delayed_work(system_long_wq, &ctrl->work, 0);
}

/*
 * Does it still matter what the host says? A message that comes after the
 * verdict, or while the channel is being closed, is drained and that is all:
 * in particular it must not start the next try before its time.
 */
static bool control_listens(struct synthrdp_control *ctrl)
{
	lockdep_assert_held(&ctrl->lock);

	return ctrl->failure == CAUSE_NONE &&
	       (ctrl->state == CONTROL_OPENING ||
		ctrl->state == CONTROL_NEGOTIATING ||
		ctrl->state == CONTROL_READY);
}

static void control_fail(struct synthrdp_control *ctrl,
			 enum control_cause cause)
{
	lockdep_assert_held(&ctrl->lock);

	ctrl->failure = cause;
	control_kick(ctrl);
}

/* Act on a message in the state we are in. */
static void control_judge(struct synthrdp_control *ctrl,
			  enum synthrdp_verdict verdict)
{
	lockdep_assert_held(&ctrl->lock);

	switch (verdict) {
	case SYNTHRDP_ACCEPT:
		if (ctrl->state != CONTROL_NEGOTIATING) {
			control_fail(ctrl, CAUSE_UNEXPECTED);
			break;
		}
		WRITE_ONCE(ctrl->state, CONTROL_READY);
		control_kick(ctrl);
		break;
	case SYNTHRDP_REJECT:
		control_fail(ctrl, ctrl->state == CONTROL_NEGOTIATING ?
				   CAUSE_REJECTED : CAUSE_UNEXPECTED);
		break;
	case SYNTHRDP_CREATE:
		if (ctrl->state != CONTROL_READY) {
			control_fail(ctrl, CAUSE_UNEXPECTED);
			break;
		}
		atomic64_inc(&ctrl->counters.sessions);
		break;
	case SYNTHRDP_UNKNOWN:
		atomic64_inc(&ctrl->rx_unknown);
		break;
	case SYNTHRDP_BAD_VERSION:
		control_fail(ctrl, CAUSE_VERSION);
		break;
	case SYNTHRDP_ERROR:
		control_fail(ctrl, CAUSE_ERROR);
		break;
	default:
		atomic64_inc(&ctrl->counters.rx_malformed);
		control_fail(ctrl, CAUSE_MALFORMED);
	}
}

/* Softirq context. Reads until the ring is empty, so that it never fills up. */
static void control_on_channel(void *context)
{
	struct synthrdp_control *ctrl = context;
	enum synthrdp_verdict verdict;
	const void *msg;
	int len;

	/* That it runs alone is all that guards the pipe's rx side. */
	lockdep_assert_in_softirq();

	while ((len = synthrdp_pipe_peek(&ctrl->pipe, &msg)) >= 0) {
		verdict = synthrdp_parse(msg, len);
		trace_synthrdp_message(msg, len, verdict);

		spin_lock(&ctrl->lock);
		if (control_listens(ctrl))
			control_judge(ctrl, verdict);
		spin_unlock(&ctrl->lock);

		synthrdp_pipe_consume(&ctrl->pipe, len);
	}
	synthrdp_pipe_publish(&ctrl->pipe);

	if (len == -EPROTO) {
		spin_lock(&ctrl->lock);
		if (control_listens(ctrl))
			control_fail(ctrl, CAUSE_MALFORMED);
		spin_unlock(&ctrl->lock);
	}
}

/* Tell user space of a state, once. */
static void control_announce(struct synthrdp_control *ctrl,
			     enum control_state state,
			     enum control_cause cause)
{
	char text[32];	/* the longest state has 11 letters */
	char *env[2] = { text };

	if (state == ctrl->announced)
		return;

	trace_synthrdp_state(control_state_names[ctrl->announced],
			     control_state_names[state],
			     control_cause_texts[cause]);
	dev_dbg(&ctrl->hdev->device, "%s: %s\n", control_state_names[state],
		control_cause_texts[cause]);
	ctrl->announced = state;

	snprintf(text, sizeof(text), "SYNTHRDP_STATE=%s",
		 control_state_names[state]);
	kobject_uevent_env(&ctrl->hdev->device.kobj, KOBJ_CHANGE, env);
}

static void control_set_state(struct synthrdp_control *ctrl,
			      enum control_state state,
			      enum control_cause cause)
{
	spin_lock_bh(&ctrl->lock);
	WRITE_ONCE(ctrl->state, state);
	spin_unlock_bh(&ctrl->lock);

	control_announce(ctrl, state, cause);
}

/*
 * Begin (CAUSE_NONE) or end listening to the host. The callback may have become
 * ready just before the end: that is announced, too.
 */
static void control_set_failure(struct synthrdp_control *ctrl,
				enum control_cause cause)
{
	enum control_state state;

	spin_lock_bh(&ctrl->lock);
	ctrl->failure = cause;
	state = ctrl->state;
	spin_unlock_bh(&ctrl->lock);

	control_announce(ctrl, state, CAUSE_AGREED);
}

static void control_close(struct synthrdp_control *ctrl)
{
	if (!ctrl->is_open)
		return;

	synthrdp_pipe_close(&ctrl->pipe);
	ctrl->is_open = false;
}

/* The conversation has come to nothing. */
static void control_give_up(struct synthrdp_control *ctrl,
			    enum control_cause cause)
{
	struct device *dev = &ctrl->hdev->device;

	control_set_failure(ctrl, cause);
	control_close(ctrl);

	/* A device that is on its way out needs no explanation. */
	if (!ctrl->hdev->channel->rescind &&
	    !test_and_set_bit(cause, &control_told))
		dev_warn(dev, "%s\n", control_cause_texts[cause]);

	if (cause == CAUSE_REJECTED) {
		control_set_state(ctrl, CONTROL_REJECTED, cause);
		return;
	}

	control_set_state(ctrl, CONTROL_FAILED, cause);
	ctrl->deadline = jiffies + ctrl->retry;
	queue_delayed_work(system_long_wq, &ctrl->work, ctrl->retry);
	ctrl->retry = min_t(unsigned long, ctrl->retry * 2, RETRY_LAST);
}

/* Open the channel and ask for a version; the callback takes the answer. */
static void control_start(struct synthrdp_control *ctrl,
			  enum control_cause cause)
{
	struct synthrdp_version_request request;
	int ret;

	control_set_failure(ctrl, CAUSE_NONE);
	control_set_state(ctrl, CONTROL_OPENING, cause);

	ret = synthrdp_pipe_open(&ctrl->pipe, ctrl->hdev->channel,
				 &ctrl->counters, HV_CALL_BATCHED,
				 control_on_channel, ctrl);
	if (ret) {
		control_give_up(ctrl, CAUSE_NOT_OPENED);
		return;
	}
	ctrl->is_open = true;

	/* Before the request goes out: the answer may be quicker than we are. */
	control_set_state(ctrl, CONTROL_NEGOTIATING, CAUSE_OPENED);

	synthrdp_build_version_request(&request);
	memcpy(ctrl->pipe.tx_packet->data, &request, sizeof(request));
	trace_synthrdp_request(&request, sizeof(request));
	ret = synthrdp_pipe_send(&ctrl->pipe, sizeof(request));
	if (ret) {
		control_give_up(ctrl, CAUSE_NOT_SENT);
		return;
	}

	/* Does nothing if the callback has something to say already. */
	ctrl->deadline = jiffies + ANSWER_TIMEOUT;
	queue_delayed_work(system_long_wq, &ctrl->work, ANSWER_TIMEOUT);
}

/* Is it too early to do what is due at the deadline? Then come back. */
static bool control_too_early(struct synthrdp_control *ctrl)
{
	if (time_after_eq(jiffies, ctrl->deadline))
		return false;

	queue_delayed_work(system_long_wq, &ctrl->work, ctrl->deadline - jiffies);
	return true;
}

static void control_work(struct work_struct *work)
{
	struct synthrdp_control *ctrl =
		container_of(work, struct synthrdp_control, work.work);
	bool enabled, restart, expired;
	enum control_cause failure, off;
	enum control_state state;

	spin_lock_bh(&ctrl->lock);
	expired = ctrl->state == CONTROL_NEGOTIATING &&
		  time_after_eq(jiffies, ctrl->deadline);
	if (expired && ctrl->failure == CAUSE_NONE)
		ctrl->failure = CAUSE_TIMEOUT;
	state = ctrl->state;
	failure = ctrl->failure;
	enabled = ctrl->enabled && !ctrl->suspended;
	off = ctrl->suspended ? CAUSE_SUSPENDED : CAUSE_OFF;
	restart = ctrl->restart;
	ctrl->restart = false;
	spin_unlock_bh(&ctrl->lock);

	if (state == CONTROL_READY) {
		control_announce(ctrl, state, CAUSE_AGREED);
		ctrl->retry = RETRY_FIRST;
	}

	if (!enabled) {
		control_set_failure(ctrl, off);
		control_close(ctrl);
		control_set_state(ctrl, CONTROL_DISABLED, off);
		return;
	}

	if (restart) {
		WRITE_ONCE(control_told, 0);
		ctrl->retry = RETRY_FIRST;
	}

	switch (state) {
	case CONTROL_NEGOTIATING:
	case CONTROL_READY:
		if (failure != CAUSE_NONE)
			control_give_up(ctrl, failure);
		else if (state == CONTROL_NEGOTIATING)
			control_too_early(ctrl);
		break;
	case CONTROL_REJECTED:
		if (restart)
			control_start(ctrl, CAUSE_ON);
		break;
	case CONTROL_FAILED:
		if (restart || !control_too_early(ctrl))
			control_start(ctrl, restart ? CAUSE_ON : CAUSE_RETRY);
		break;
	default:
		control_start(ctrl, CAUSE_ON);
	}
}

static struct synthrdp_control *dev_control(struct device *dev)
{
	return dev_get_drvdata(dev);
}

/* Switch on or off. Off holds once this returns; on goes on by itself. */
static ssize_t enabled_store(struct device *dev, struct device_attribute *attr,
			     const char *buf, size_t count)
{
	struct synthrdp_control *ctrl = dev_control(dev);
	bool enabled;
	int ret;

	ret = kstrtobool(buf, &enabled);
	if (ret)
		return ret;

	spin_lock_bh(&ctrl->lock);
	WRITE_ONCE(ctrl->enabled, enabled);
	ctrl->restart = enabled;
	control_kick(ctrl);
	spin_unlock_bh(&ctrl->lock);

	if (!enabled)
		flush_delayed_work(&ctrl->work);

	return count;
}

static ssize_t enabled_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(dev_control(dev)->enabled));
}
static DEVICE_ATTR_RW(enabled);

static ssize_t state_show(struct device *dev, struct device_attribute *attr,
			  char *buf)
{
	enum control_state state = READ_ONCE(dev_control(dev)->state);

	return sysfs_emit(buf, "%s\n", control_state_names[state]);
}
static DEVICE_ATTR_RO(state);

static ssize_t version_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	if (READ_ONCE(dev_control(dev)->state) != CONTROL_READY)
		return sysfs_emit(buf, "none\n");

	return sysfs_emit(buf, "%d.%d\n", SYNTHRDP_VERSION_MAJOR,
			  SYNTHRDP_VERSION_MINOR);
}
static DEVICE_ATTR_RO(version);

static ssize_t rx_unknown_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", (long long)
			  atomic64_read(&dev_control(dev)->rx_unknown));
}
static DEVICE_ATTR_RO(rx_unknown);

static struct synthrdp_counters *control_counters(struct device *dev)
{
	return &dev_control(dev)->counters;
}

SYNTHRDP_COUNTER_ATTR(rx_packets, control_counters);
SYNTHRDP_COUNTER_ATTR(rx_bytes, control_counters);
SYNTHRDP_COUNTER_ATTR(tx_packets, control_counters);
SYNTHRDP_COUNTER_ATTR(tx_bytes, control_counters);
SYNTHRDP_COUNTER_ATTR(rx_malformed, control_counters);
SYNTHRDP_COUNTER_ATTR(sessions, control_counters);

static struct attribute *control_attrs[] = {
	&dev_attr_enabled.attr,
	&dev_attr_state.attr,
	&dev_attr_version.attr,
	&dev_attr_rx_unknown.attr,
	&dev_attr_rx_packets.attr,
	&dev_attr_rx_bytes.attr,
	&dev_attr_tx_packets.attr,
	&dev_attr_tx_bytes.attr,
	&dev_attr_rx_malformed.attr,
	&dev_attr_sessions.attr,
	NULL
};

/* A directory of its own: at the device's level the bus has a state already. */
static const struct attribute_group control_group = {
	.name = "synthrdp",
	.attrs = control_attrs,
};

/**
 * synthrdp_control_probe() - take charge of the control device
 * @hdev: the VMBus device
 * @enabled: start the conversation with the host at once
 *
 * Return: 0 or a negative errno.
 */
int synthrdp_control_probe(struct hv_device *hdev, bool enabled)
{
	struct synthrdp_control *ctrl;
	int ret;

	ctrl = kzalloc(sizeof(*ctrl), GFP_KERNEL);
	if (!ctrl)
		return -ENOMEM;

	ctrl->hdev = hdev;
	ctrl->counters.number = -1;
	ctrl->enabled = enabled;
	ctrl->retry = RETRY_FIRST;
	spin_lock_init(&ctrl->lock);
	INIT_DELAYED_WORK(&ctrl->work, control_work);
	hv_set_drvdata(hdev, ctrl);

	ret = sysfs_create_group(&hdev->device.kobj, &control_group);
	if (ret) {
		kfree(ctrl);
		return ret;
	}

	spin_lock_bh(&ctrl->lock);
	control_kick(ctrl);
	spin_unlock_bh(&ctrl->lock);

	return 0;
}

/**
 * synthrdp_control_remove() - let go of the control device
 * @hdev: the VMBus device
 */
void synthrdp_control_remove(struct hv_device *hdev)
{
	struct synthrdp_control *ctrl;

	/* The attributes find it by the drvdata, too. */
	sysfs_remove_group(&hdev->device.kobj, &control_group);

	mutex_lock(&controls_lock);
	ctrl = hv_get_drvdata(hdev);
	hv_set_drvdata(hdev, NULL);
	mutex_unlock(&controls_lock);

	spin_lock_bh(&ctrl->lock);
	ctrl->gone = true;
	spin_unlock_bh(&ctrl->lock);

	cancel_delayed_work_sync(&ctrl->work);
	control_close(ctrl);
	kfree(ctrl);
}

static void control_set_suspended(struct hv_device *hdev, bool suspended)
{
	struct synthrdp_control *ctrl;

	mutex_lock(&controls_lock);
	ctrl = hv_get_drvdata(hdev);
	if (ctrl) {
		spin_lock_bh(&ctrl->lock);
		ctrl->suspended = suspended;
		ctrl->restart = !suspended;
		control_kick(ctrl);
		spin_unlock_bh(&ctrl->lock);

		if (suspended)
			flush_delayed_work(&ctrl->work);
	}
	mutex_unlock(&controls_lock);
}

/**
 * synthrdp_control_suspend() - the machine is about to hibernate
 * @hdev: the VMBus device
 *
 * Return: 0.
 */
int synthrdp_control_suspend(struct hv_device *hdev)
{
	control_set_suspended(hdev, true);

	return 0;
}

/**
 * synthrdp_control_resume() - the machine has woken up, maybe on another host
 * @hdev: the VMBus device
 *
 * Return: 0.
 */
int synthrdp_control_resume(struct hv_device *hdev)
{
	control_set_suspended(hdev, false);

	return 0;
}
