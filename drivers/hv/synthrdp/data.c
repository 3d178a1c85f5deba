// SPDX-License-Identifier: GPL-2.0-only
/*
 * A data channel's life, its character device and its counters.
 *
 * The host offers a data channel for each session and withdraws it when the
 * session ends, at any time, whoever sleeps in the driver. Four things have
 * lives of their own:
 *
 * - struct synthrdp_offer, from probe to remove. That is as long as the channel
 *   is offered, or longer: the bus keeps a channel that is not offered again
 *   when the machine wakes up from hibernation;
 * - struct synthrdp_data, from when the channel is offered until the last
 *   reference to its device is gone, which may be long after the VMBus device
 *   went: an open file keeps it;
 * - struct synthrdp_session, from open to release;
 * - the pipe in the session, from open to the first of: release, removal of
 *   the VMBus device, suspend.
 *
 * Before the pipe is closed, and also on malformed input, the session hangs up:
 * what the host had sent by then moves to the session's tail, where it can be
 * read when the ring is gone, and nobody touches the pipe any more.
 *
 * Locking, outermost first:
 *
 * offers_lock			guards the drvdata of data channels, from which
 *				hibernation finds what removal frees.
 * synthrdp_data.lock		guards hdev and session: who may open, and what
 *				there is to close. Held while the host is waited
 *				for, in vmbus_open() and vmbus_close().
 * synthrdp_session.rx_lock	guards the pipe's rx side and the tail.
 * synthrdp_session.tx_lock	guards the pipe's tx side.
 *
 * A hang-up takes both session locks, so either of them is enough to know that
 * the pipe is open while hung_up is false. Nobody touches user memory that may
 * have to be paged in, or waits for the host, with a session lock held: so poll
 * and non-blocking calls do not sleep for long, and the removal of a device
 * never waits for a user.
 */

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/hyperv.h>
#include <linux/idr.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "data.h"
#include "pipe.h"
#include "trace.h"

/*
 * Minors, so nodes at the same time. Hosts are known to use five; this bounds
 * what one that does not know when to stop can make us allocate.
 */
#define SYNTHRDP_MINORS		256

/*
 * How long release waits for the host to read what was written: a busy host gets
 * its time, and a process that is killed is gone before somebody wonders.
 */
#define FLUSH_TIMEOUT_MS	3000

/*
 * A host signals that a full ring has drained when pending_send_sz asks for
 * it. Whether a real one still does so for the last byte is not known, so look
 * this often as well: nobody notices the delay at the end of a session, nor do 60
 * looks in FLUSH_TIMEOUT_MS cost anything.
 */
#define FLUSH_LOOK_MS		50

/* How often to look whether a channel without a node can have one again */
#define OFFER_LOOK		HZ

static dev_t synthrdp_devt;
static DEFINE_IDA(synthrdp_numbers);

/*
 * Guards the drvdata of data channels. The bus suspends and resumes devices in
 * the noirq phase, in which the device lock is not held, and takes back what the
 * host withdraws at the same time.
 */
static DEFINE_MUTEX(offers_lock);

/* Devices not yet released: module exit waits until their code is done with. */
static atomic_t synthrdp_live = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(synthrdp_all_released);

/**
 * struct synthrdp_offer - a data channel as the bus knows it
 * @hdev: the VMBus device
 * @data: its node, or NULL while the channel is not offered; belongs to @renew
 *	after probe
 * @renew: makes the node anew after hibernation
 */
struct synthrdp_offer {
	struct hv_device *hdev;
	struct synthrdp_data *data;
	struct delayed_work renew;
};

/**
 * struct synthrdp_data - a data channel and its node
 * @dev: the class device; its last reference frees this
 * @cdev: the node
 * @number: N of /dev/synthrdpN, and the minor
 * @counters: what passed since the device appeared
 * @in_use: bit 0: somebody has the node open, or is opening or closing it
 * @lock: guards @hdev and @session
 * @hdev: the VMBus device, NULL once it is gone
 * @session: the session whose pipe is open, or NULL
 */
struct synthrdp_data {
	struct device dev;
	struct cdev cdev;
	int number;
	struct synthrdp_counters counters;
	unsigned long in_use;

	struct mutex lock;	/* guards hdev and session */
	struct hv_device *hdev;
	struct synthrdp_session *session;
};

/**
 * struct synthrdp_session - what one open file reads and writes
 * @data: the device, of which the session holds a reference
 * @rx_lock: guards the pipe's rx side, @tail, @tail_pos and @tail_len
 * @tx_lock: guards the pipe's tx side
 * @pipe: belongs to data->lock from @hung_up on
 * @hung_up: the conversation with the host is over; set under both locks
 * @error: 0, or -EPROTO if the host broke the protocol; set with @hung_up
 * @tail_pos: how much of @tail has been read
 * @tail_len: bytes in @tail
 * @tail: what had arrived, and was not read, before the hang-up; as large as
 *	the ring, and allocated beforehand, so that no hang-up loses data
 */
struct synthrdp_session {
	struct synthrdp_data *data;
	struct mutex rx_lock;	/* guards the pipe's rx side and the tail */
	struct mutex tx_lock;	/* guards the pipe's tx side */
	struct synthrdp_pipe pipe;
	bool hung_up;
	int error;
	u32 tail_pos;
	u32 tail_len;
	u8 *tail;
};

/* Not the module's own memory: its last reference may go after the module. */
static struct class *synthrdp_class;

static struct synthrdp_session *session_alloc(struct synthrdp_data *data)
{
	struct synthrdp_session *session;

	session = kzalloc(sizeof(*session), GFP_KERNEL);
	if (!session)
		return NULL;

	session->tail = kvmalloc(SYNTHRDP_RING_SIZE, GFP_KERNEL);
	if (!session->tail) {
		kfree(session);
		return NULL;
	}

	session->data = data;
	mutex_init(&session->rx_lock);
	mutex_init(&session->tx_lock);

	return session;
}

static void session_free(struct synthrdp_session *session)
{
	kvfree(session->tail);
	kfree(session);
}

static void session_on_channel(void *context)
{
	struct synthrdp_session *session = context;

	synthrdp_pipe_signalled(&session->pipe);
}

/*
 * Save what the host has sent. The pipe never gives out more than a ring
 * between two publications, so this ends, and fits, whatever the host does.
 */
static int session_save_tail(struct synthrdp_session *session)
{
	const void *from;
	int len;

	lockdep_assert_held(&session->rx_lock);

	while ((len = synthrdp_pipe_peek(&session->pipe, &from)) >= 0) {
		memcpy(session->tail + session->tail_len, from, len);
		session->tail_len += len;
		synthrdp_pipe_consume(&session->pipe, len);
	}

	return len == -EPROTO ? len : 0;
}

/* End the conversation with the host. Both session locks are held. */
static void session_hang_up_locked(struct synthrdp_session *session, int error,
				   const char *reason)
{
	struct synthrdp_data *data = session->data;

	lockdep_assert_held(&session->rx_lock);
	lockdep_assert_held(&session->tx_lock);

	if (session->hung_up)
		return;

	session->error = session_save_tail(session) ?: error;
	session->hung_up = true;

	if (session->error)
		dev_warn_ratelimited(&data->dev,
				     "malformed packet from the host, session ended\n");
	dev_dbg(&data->dev, "session %s\n", reason);
	trace_synthrdp_session_hang_up(data->number, reason, session->tail_len);

	synthrdp_event_signal(&session->pipe.rx_event);
	synthrdp_event_signal(&session->pipe.tx_event);
}

static void session_hang_up(struct synthrdp_session *session, int error,
			    const char *reason)
{
	mutex_lock(&session->rx_lock);
	mutex_lock(&session->tx_lock);
	session_hang_up_locked(session, error, reason);
	mutex_unlock(&session->tx_lock);
	mutex_unlock(&session->rx_lock);
}

/* Close the open session's channel, if that has not been done. */
static void data_close(struct synthrdp_data *data, const char *reason)
{
	struct synthrdp_session *session = data->session;

	lockdep_assert_held(&data->lock);

	if (!session)
		return;

	session_hang_up(session, 0, reason);
	synthrdp_pipe_close(&session->pipe);
	data->session = NULL;
}

/*
 * Like synthrdp_pipe_peek(), but over empty packets, and through to the tail.
 * Malformed input hangs up. Returns -EAGAIN when there is nothing yet, 0 at
 * the end and -EPROTO at a bad end.
 */
static int session_peek(struct synthrdp_session *session, const void **from)
{
	int len;

	lockdep_assert_held(&session->rx_lock);

	if (!session->hung_up) {
		while (!(len = synthrdp_pipe_peek(&session->pipe, from)))
			synthrdp_pipe_consume(&session->pipe, 0);
		if (len != -EPROTO)
			return len;

		mutex_lock(&session->tx_lock);
		session_hang_up_locked(session, -EPROTO, "malformed");
		mutex_unlock(&session->tx_lock);
	}

	if (session->tail_pos == session->tail_len)
		return session->error;

	*from = session->tail + session->tail_pos;
	return session->tail_len - session->tail_pos;
}

static void session_consume(struct synthrdp_session *session, u32 len)
{
	lockdep_assert_held(&session->rx_lock);

	if (session->hung_up)
		session->tail_pos += len;
	else
		synthrdp_pipe_consume(&session->pipe, len);
}

/*
 * Move what is there to the reader. Returns the bytes moved, -EAGAIN when there
 * is nothing yet, -EFAULT when user memory has to be paged in first, 0 at the
 * end and -EPROTO at a bad end.
 */
static ssize_t session_receive(struct synthrdp_session *session,
			       struct iov_iter *to)
{
	ssize_t received = 0;
	const void *from;
	size_t copied;
	int ret = 0;

	mutex_lock(&session->rx_lock);
	pagefault_disable();
	while (iov_iter_count(to)) {
		ret = session_peek(session, &from);
		if (ret <= 0)
			break;

		copied = copy_to_iter(from, min_t(size_t, ret,
						  iov_iter_count(to)), to);
		if (!copied) {
			ret = -EFAULT;
			break;
		}
		session_consume(session, copied);
		received += copied;
	}
	pagefault_enable();
	if (!session->hung_up)
		synthrdp_pipe_publish(&session->pipe);
	mutex_unlock(&session->rx_lock);

	return received ?: ret;
}

/*
 * Send one packet with what the writer has and the ring takes; if @all, only
 * when the ring takes everything that fits into a packet. Returns the bytes
 * sent, -EAGAIN when the host will signal room, -EFAULT when user memory has to
 * be paged in first, and -EPROTO or -ENODEV after the hang-up.
 */
static ssize_t session_transmit(struct synthrdp_session *session,
				struct iov_iter *from, bool all)
{
	u32 len = min_t(size_t, iov_iter_count(from), SYNTHRDP_PIPE_MAX_DATA);
	u32 enough = all ? len : 1;
	ssize_t ret;
	int room;

	mutex_lock(&session->tx_lock);
	if (session->hung_up) {
		ret = session->error ?: -ENODEV;
		goto unlock;
	}

	room = synthrdp_pipe_room(&session->pipe);
	if (room >= 0 && room < enough)
		room = synthrdp_pipe_want_room(&session->pipe, enough);
	if (room < 0 || room < enough) {
		ret = room < 0 ? room : -EAGAIN;
		goto unlock;
	}

	pagefault_disable();
	len = copy_from_iter(session->pipe.tx_packet->data,
			     min_t(u32, len, room), from);
	pagefault_enable();
	if (!len) {
		ret = -EFAULT;
		goto unlock;
	}

	ret = synthrdp_pipe_send(&session->pipe, len);
	if (ret)
		iov_iter_revert(from, len);
	else
		ret = len;
unlock:
	mutex_unlock(&session->tx_lock);

	return ret;
}

static bool nonblocking(const struct kiocb *iocb)
{
	return (iocb->ki_filp->f_flags & O_NONBLOCK) ||
	       (iocb->ki_flags & IOCB_NOWAIT);
}

/* How much user memory to page in at a time, when some has to be */
static size_t fault_in_size(const struct iov_iter *iter)
{
	return min_t(size_t, iov_iter_count(iter), SYNTHRDP_PIPE_MAX_DATA);
}

static ssize_t synthrdp_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct synthrdp_session *session = iocb->ki_filp->private_data;
	struct synthrdp_event *event = &session->pipe.rx_event;
	size_t fault_in = fault_in_size(to);
	ssize_t ret;
	int seq;

	if (!iov_iter_count(to))
		return 0;

	for (;;) {
		seq = synthrdp_event_seq(event);

		ret = session_receive(session, to);
		if (ret == -EFAULT &&
		    fault_in_iov_iter_writeable(to, fault_in) < fault_in)
			continue;
		if (ret != -EAGAIN || nonblocking(iocb))
			return ret;

		ret = synthrdp_event_wait(event, seq);
		if (ret)
			return ret;
	}
}

static ssize_t synthrdp_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct synthrdp_session *session = iocb->ki_filp->private_data;
	struct synthrdp_event *event = &session->pipe.tx_event;
	bool block = !nonblocking(iocb);
	ssize_t written = 0;
	ssize_t ret = 0;
	size_t fault_in;
	int seq;

	while (iov_iter_count(from)) {
		seq = synthrdp_event_seq(event);

		ret = session_transmit(session, from, block);
		if (ret > 0) {
			written += ret;
			if (signal_pending(current))
				ret = -ERESTARTSYS;
		} else if (ret == -EPROTO) {
			session_hang_up(session, ret, "malformed");
		} else if (ret == -EFAULT) {
			fault_in = fault_in_size(from);
			if (fault_in_iov_iter_readable(from, fault_in) <
			    fault_in)
				ret = 0;
		} else if (ret == -EAGAIN && block) {
			atomic64_inc(&session->data->counters.tx_waits);
			trace_synthrdp_tx_wait(session->data->number,
					       iov_iter_count(from));
			ret = synthrdp_event_wait(event, seq);
			trace_synthrdp_tx_wake(session->data->number, ret);
		}
		if (ret < 0)
			break;
	}

	return written ?: ret;
}

static __poll_t synthrdp_poll(struct file *file, poll_table *wait)
{
	struct synthrdp_session *session = file->private_data;
	__poll_t mask = 0;
	const void *from;
	int room = 0;
	int ret;

	poll_wait(file, &session->pipe.rx_event.wait, wait);
	poll_wait(file, &session->pipe.tx_event.wait, wait);

	mutex_lock(&session->rx_lock);
	ret = session_peek(session, &from);
	if (ret != -EAGAIN)
		mask |= EPOLLIN | EPOLLRDNORM;
	if (ret == -EPROTO)
		mask |= EPOLLERR;
	if (!session->hung_up)
		synthrdp_pipe_publish(&session->pipe);
	mutex_unlock(&session->rx_lock);

	mutex_lock(&session->tx_lock);
	if (session->hung_up) {
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	} else {
		room = synthrdp_pipe_room(&session->pipe);
		/* Only who asks is worth the host's signal. */
		if (!room && (poll_requested_events(wait) &
			      (EPOLLOUT | EPOLLWRNORM)))
			room = synthrdp_pipe_want_room(&session->pipe, 1);
		if (room > 0)
			mask |= EPOLLOUT | EPOLLWRNORM;
	}
	mutex_unlock(&session->tx_lock);

	if (room < 0) {
		session_hang_up(session, room, "malformed");
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	}

	return mask;
}

static int synthrdp_open(struct inode *inode, struct file *file)
{
	struct synthrdp_data *data =
		container_of(inode->i_cdev, struct synthrdp_data, cdev);
	struct synthrdp_session *session;
	int ret;

	if (test_and_set_bit(0, &data->in_use))
		return -EBUSY;

	session = session_alloc(data);
	if (!session) {
		ret = -ENOMEM;
		goto err_unuse;
	}

	mutex_lock(&data->lock);
	ret = -ENODEV;
	if (data->hdev)
		ret = synthrdp_pipe_open(&session->pipe, data->hdev->channel,
					 &data->counters, HV_CALL_DIRECT,
					 session_on_channel, session);
	if (!ret)
		data->session = session;
	trace_synthrdp_session_open(data->number, ret);
	mutex_unlock(&data->lock);
	if (ret) {
		dev_dbg(&data->dev, "session not opened: %d\n", ret);
		goto err_free;
	}

	get_device(&data->dev);
	atomic64_inc(&data->counters.sessions);

	stream_open(inode, file);
	file->f_mode |= FMODE_NOWAIT;
	file->private_data = session;

	return 0;

err_free:
	session_free(session);
err_unuse:
	clear_bit_unlock(0, &data->in_use);

	return ret;
}

/* Give the host time to read what was written; closing the channel drops it. */
static void session_flush(struct synthrdp_session *session)
{
	struct synthrdp_event *event = &session->pipe.tx_event;
	unsigned long end = jiffies + msecs_to_jiffies(FLUSH_TIMEOUT_MS);
	bool done;
	int seq;

	for (;;) {
		seq = synthrdp_event_seq(event);

		mutex_lock(&session->tx_lock);
		done = session->hung_up ||
		       synthrdp_pipe_want_empty(&session->pipe);
		mutex_unlock(&session->tx_lock);
		if (done || time_after(jiffies, end))
			return;

		wait_event_timeout(event->wait,
				   synthrdp_event_seq(event) != seq,
				   msecs_to_jiffies(FLUSH_LOOK_MS));
	}
}

static int synthrdp_release(struct inode *inode, struct file *file)
{
	struct synthrdp_session *session = file->private_data;
	struct synthrdp_data *data = session->data;

	session_flush(session);

	mutex_lock(&data->lock);
	data_close(data, "closed");
	trace_synthrdp_session_close(data->number);
	mutex_unlock(&data->lock);

	session_free(session);
	clear_bit_unlock(0, &data->in_use);
	put_device(&data->dev);

	return 0;
}

static const struct file_operations synthrdp_fops = {
	.owner		= THIS_MODULE,
	.open		= synthrdp_open,
	.release	= synthrdp_release,
	.read_iter	= synthrdp_read_iter,
	.write_iter	= synthrdp_write_iter,
	.poll		= synthrdp_poll,
};

static struct synthrdp_counters *data_counters(struct device *dev)
{
	return &container_of(dev, struct synthrdp_data, dev)->counters;
}

SYNTHRDP_COUNTER_ATTR(rx_packets, data_counters);
SYNTHRDP_COUNTER_ATTR(rx_bytes, data_counters);
SYNTHRDP_COUNTER_ATTR(tx_packets, data_counters);
SYNTHRDP_COUNTER_ATTR(tx_bytes, data_counters);
SYNTHRDP_COUNTER_ATTR(tx_waits, data_counters);
SYNTHRDP_COUNTER_ATTR(rx_malformed, data_counters);
SYNTHRDP_COUNTER_ATTR(sessions, data_counters);

static struct attribute *synthrdp_data_attrs[] = {
	&dev_attr_rx_packets.attr,
	&dev_attr_rx_bytes.attr,
	&dev_attr_tx_packets.attr,
	&dev_attr_tx_bytes.attr,
	&dev_attr_tx_waits.attr,
	&dev_attr_rx_malformed.attr,
	&dev_attr_sessions.attr,
	NULL
};
ATTRIBUTE_GROUPS(synthrdp_data);

static void data_release(struct device *dev)
{
	struct synthrdp_data *data =
		container_of(dev, struct synthrdp_data, dev);

	kfree(data);

	/* Module exit waits for the read side too: nothing of this runs then. */
	rcu_read_lock();
	if (atomic_dec_and_test(&synthrdp_live))
		wake_up(&synthrdp_all_released);
	rcu_read_unlock();
}

/* The VMBus device is not to be used any more. */
static void data_detach(struct synthrdp_data *data, const char *reason)
{
	mutex_lock(&data->lock);
	data->hdev = NULL;
	data_close(data, reason);
	mutex_unlock(&data->lock);
}

/* Make a node. The channel itself is opened when the node is. */
static struct synthrdp_data *data_create(struct hv_device *hdev)
{
	struct synthrdp_data *data;
	int number, ret;

	number = synthrdp_instance_number(&hdev->dev_instance);
	if (number >= 0)
		number = ida_alloc_range(&synthrdp_numbers, number, number,
					 GFP_KERNEL);
	else
		number = ida_alloc_range(&synthrdp_numbers,
					 SYNTHRDP_KNOWN_INSTANCES,
					 SYNTHRDP_MINORS - 1, GFP_KERNEL);
	if (number < 0)
		return ERR_PTR(number);

	data = kzalloc(sizeof(*data), GFP_KERNEL);
	if (!data) {
		ret = -ENOMEM;
		goto err_number;
	}
	data->number = number;
	data->counters.number = number;
	data->hdev = hdev;
	mutex_init(&data->lock);

	device_initialize(&data->dev);
	atomic_inc(&synthrdp_live);
	data->dev.devt = MKDEV(MAJOR(synthrdp_devt), number);
	data->dev.class = synthrdp_class;
	data->dev.parent = &hdev->device;
	data->dev.groups = synthrdp_data_groups;
	data->dev.release = data_release;
	ret = dev_set_name(&data->dev, "synthrdp%d", number);
	if (ret)
		goto err_put;

	cdev_init(&data->cdev, &synthrdp_fops);
	data->cdev.owner = THIS_MODULE;
	ret = cdev_device_add(&data->cdev, &data->dev);
	if (ret) {
		/* It was there for a moment, and may have been opened. */
		data_detach(data, "unbound");
		goto err_put;
	}

	return data;

err_put:
	put_device(&data->dev);
err_number:
	ida_free(&synthrdp_numbers, number);

	return ERR_PTR(ret);
}

/*
 * The node and its number go; who has it open reads what had arrived and then
 * the end.
 */
static void data_destroy(struct synthrdp_data *data, const char *reason)
{
	int number = data->number;

	cdev_device_del(&data->cdev, &data->dev);
	data_detach(data, reason);
	put_device(&data->dev);
	ida_free(&synthrdp_numbers, number);
}

/*
 * After hibernation. Only a node that goes and comes tells user space that
 * there is a session to serve. And the bus does not tell of a channel that the
 * host offers again later than all others, so look.
 */
static void data_renew(struct work_struct *work)
{
	struct synthrdp_offer *offer =
		container_of(work, struct synthrdp_offer, renew.work);
	struct synthrdp_data *data;

	if (offer->data)
		data_destroy(offer->data, "suspended");
	offer->data = NULL;

	if (synthrdp_pipe_offered(offer->hdev->channel)) {
		data = data_create(offer->hdev);
		if (!IS_ERR(data)) {
			offer->data = data;
			return;
		}
		dev_warn_ratelimited(&offer->hdev->device,
				     "no node after hibernation\n");
	}

	queue_delayed_work(system_freezable_wq, &offer->renew, OFFER_LOOK);
}

/**
 * synthrdp_data_probe() - make a node for a data channel
 * @hdev: the VMBus device
 *
 * Return: 0 or a negative errno.
 */
int synthrdp_data_probe(struct hv_device *hdev)
{
	struct synthrdp_offer *offer;

	offer = kzalloc(sizeof(*offer), GFP_KERNEL);
	if (!offer)
		return -ENOMEM;

	offer->hdev = hdev;
	INIT_DELAYED_WORK(&offer->renew, data_renew);
	offer->data = data_create(hdev);
	if (IS_ERR(offer->data)) {
		int ret = PTR_ERR(offer->data);

		kfree(offer);
		return ret;
	}
	hv_set_drvdata(hdev, offer);

	return 0;
}

/**
 * synthrdp_data_remove() - the data channel goes
 * @hdev: the VMBus device
 */
void synthrdp_data_remove(struct hv_device *hdev)
{
	struct synthrdp_offer *offer;

	mutex_lock(&offers_lock);
	offer = hv_get_drvdata(hdev);
	hv_set_drvdata(hdev, NULL);
	mutex_unlock(&offers_lock);

	cancel_delayed_work_sync(&offer->renew);
	if (offer->data)
		data_destroy(offer->data, hdev->channel->rescind ?
					  "withdrawn" : "unbound");
	kfree(offer);
}

/**
 * synthrdp_data_suspend() - the machine is about to hibernate
 * @hdev: the VMBus device
 *
 * A session does not survive that: it ends as if the host had ended it.
 *
 * Return: 0.
 */
int synthrdp_data_suspend(struct hv_device *hdev)
{
	struct synthrdp_offer *offer;

	mutex_lock(&offers_lock);
	offer = hv_get_drvdata(hdev);
	if (offer && offer->data)
		data_detach(offer->data, "suspended");
	mutex_unlock(&offers_lock);

	return 0;
}

/**
 * synthrdp_data_resume() - the machine has woken up, or did not hibernate
 * @hdev: the VMBus device
 *
 * A device must not be removed or added before all of them have woken up.
 *
 * Return: 0.
 */
int synthrdp_data_resume(struct hv_device *hdev)
{
	struct synthrdp_offer *offer;

	mutex_lock(&offers_lock);
	offer = hv_get_drvdata(hdev);
	if (offer)
		mod_delayed_work(system_freezable_wq, &offer->renew, 0);
	mutex_unlock(&offers_lock);

	return 0;
}

/**
 * synthrdp_data_init() - prepare for data channels
 *
 * Return: 0 or a negative errno.
 */
int synthrdp_data_init(void)
{
	int ret;

	synthrdp_class = synthrdp_class_create("synthrdp");
	if (IS_ERR(synthrdp_class))
		return PTR_ERR(synthrdp_class);

	ret = alloc_chrdev_region(&synthrdp_devt, 0, SYNTHRDP_MINORS,
				  "synthrdp");
	if (ret)
		class_destroy(synthrdp_class);

	return ret;
}

/**
 * synthrdp_data_exit() - undo synthrdp_data_init()
 *
 * No data channel is left. The last references to their devices may still be
 * on their way out.
 */
void synthrdp_data_exit(void)
{
	wait_event(synthrdp_all_released, !atomic_read(&synthrdp_live));
	synchronize_rcu();
	unregister_chrdev_region(synthrdp_devt, SYNTHRDP_MINORS);
	class_destroy(synthrdp_class);
}
