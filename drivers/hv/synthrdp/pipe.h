/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A VMBus pipe: one channel, pipe framing both ways, ring flow control.
 */
#ifndef _SYNTHRDP_PIPE_H
#define _SYNTHRDP_PIPE_H

#include <linux/atomic.h>
#include <linux/hyperv.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>

#include "protocol.h"

/*
 * Size of the ring for one direction, its header page included. Both rings are
 * one physically contiguous allocation, so more is harder to get; this holds
 * three packets of the largest size: one that is written, one that is read, and
 * one in between.
 */
#define SYNTHRDP_RING_SIZE	VMBUS_RING_SIZE(SZ_64K)

/**
 * struct synthrdp_counters - what passed through a device since it appeared
 * @number: which device: N of /dev/synthrdpN, or -1 for the control device;
 *	does not change
 * @rx_packets: packets from the host that were sound
 * @rx_bytes: data in them
 * @tx_packets: packets to the host
 * @tx_bytes: data in them
 * @tx_waits: times a writer found no room in the ring and went to sleep
 * @rx_malformed: packets or messages from the host that broke the protocol
 * @sessions: control: CreateSession messages; data: successful opens
 *
 * Each may be read and incremented at any time, under no lock.
 */
struct synthrdp_counters {
	int number;
	atomic64_t rx_packets;
	atomic64_t rx_bytes;
	atomic64_t tx_packets;
	atomic64_t tx_bytes;
	atomic64_t tx_waits;
	atomic64_t rx_malformed;
	atomic64_t sessions;
};

/* Defines the read-only attribute of one counter; @_of: device to counters */
#define SYNTHRDP_COUNTER_ATTR(_name, _of)				\
static ssize_t _name##_show(struct device *dev,				\
			    struct device_attribute *attr, char *buf)	\
{									\
	return sysfs_emit(buf, "%lld\n",				\
			  (long long)atomic64_read(&(_of)(dev)->_name)); \
}									\
static DEVICE_ATTR_RO(_name)

/**
 * struct synthrdp_event - something that may be worth another look
 * @wait: those who wait for it
 * @seq: how often it has happened
 *
 * Who looks for something to do reads @seq first, and having found nothing
 * sleeps until @seq has changed: nothing that happens in between is missed, and
 * several waiters do not take each other's wake-up away.
 */
struct synthrdp_event {
	wait_queue_head_t wait;
	atomic_t seq;
};

/**
 * synthrdp_event_init() - nothing has happened yet
 * @event: event to set up
 */
static inline void synthrdp_event_init(struct synthrdp_event *event)
{
	init_waitqueue_head(&event->wait);
	atomic_set(&event->seq, 0);
}

/**
 * synthrdp_event_seq() - how often it has happened
 * @event: the event
 *
 * Acquire: the look that follows must not happen before.
 *
 * Return: a number to compare with a later one.
 */
static inline int synthrdp_event_seq(struct synthrdp_event *event)
{
	return atomic_read_acquire(&event->seq);
}

/**
 * synthrdp_event_wait() - sleep until it happens again
 * @event: the event
 * @seq: what synthrdp_event_seq() returned before the look that was in vain
 *
 * Return: 0, or -ERESTARTSYS if a signal came, even when there is no need to
 * sleep: a host that makes things happen all the time must not keep a process
 * from being killed.
 */
static inline int synthrdp_event_wait(struct synthrdp_event *event, int seq)
{
	if (signal_pending(current))
		return -ERESTARTSYS;

	return wait_event_interruptible(event->wait,
					synthrdp_event_seq(event) != seq);
}

/**
 * synthrdp_event_signal() - it has happened: wake all who wait for it
 * @event: the event
 *
 * Any context.
 */
static inline void synthrdp_event_signal(struct synthrdp_event *event)
{
	atomic_inc(&event->seq);
	wake_up(&event->wait);
}

/**
 * struct synthrdp_pipe - an open VMBus pipe
 * @channel: the channel
 * @counters: whom to tell what passed
 * @rx_event: the host has sent something; stays valid when the pipe is closed
 * @tx_event: waiters for room should try again; likewise
 * @rx_next: packet that was already fetched behind the current one, or NULL
 * @rx_desc: packet being read, or NULL; like @rx_next it points into the
 *	channel's own copy, which the host cannot reach
 * @rx_data: data of @rx_desc not yet consumed
 * @rx_left: bytes at @rx_data
 * @rx_unpublished: ring bytes of packets that were consumed, but whose room the
 *	host cannot see yet
 * @rx_broken: a malformed packet was met; nothing behind it can be trusted
 * @tx_wanted: ring bytes that the most modest waiter for room needs, or 0;
 *	read without a lock by synthrdp_pipe_signalled()
 * @tx_packet: staging area for one packet to the host
 *
 * The caller serialises: one lock (or the channel callback) for the rx fields,
 * another for the tx fields, both for open and close.
 */
struct synthrdp_pipe {
	struct vmbus_channel *channel;
	struct synthrdp_counters *counters;
	struct synthrdp_event rx_event;
	struct synthrdp_event tx_event;

	struct vmpacket_descriptor *rx_next;
	struct vmpacket_descriptor *rx_desc;
	const u8 *rx_data;
	u32 rx_left;
	u32 rx_unpublished;
	bool rx_broken;

	u32 tx_wanted;
	struct synthrdp_pipe_packet *tx_packet;
};

/**
 * struct synthrdp_pipe_packet - a packet as it goes into the ring
 * @header: filled in by synthrdp_pipe_send()
 * @data: up to SYNTHRDP_PIPE_MAX_DATA bytes, filled in by the caller
 */
struct synthrdp_pipe_packet {
	struct synthrdp_pipe_header header;
	u8 data[];
} __packed;

bool synthrdp_pipe_offered(struct vmbus_channel *channel);
int synthrdp_pipe_open(struct synthrdp_pipe *pipe,
		       struct vmbus_channel *channel,
		       struct synthrdp_counters *counters,
		       enum hv_callback_mode mode,
		       void (*callback)(void *context), void *context);
void synthrdp_pipe_close(struct synthrdp_pipe *pipe);

int synthrdp_pipe_peek(struct synthrdp_pipe *pipe, const void **data);
void synthrdp_pipe_consume(struct synthrdp_pipe *pipe, u32 len);
void synthrdp_pipe_publish(struct synthrdp_pipe *pipe);

int synthrdp_pipe_room(struct synthrdp_pipe *pipe);
int synthrdp_pipe_want_room(struct synthrdp_pipe *pipe, u32 len);
bool synthrdp_pipe_want_empty(struct synthrdp_pipe *pipe);
int synthrdp_pipe_send(struct synthrdp_pipe *pipe, u32 len);

void synthrdp_pipe_signalled(struct synthrdp_pipe *pipe);

#endif /* _SYNTHRDP_PIPE_H */
