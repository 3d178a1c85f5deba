// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VMBus pipe: one channel, pipe framing both ways, ring flow control.
 *
 * Receiving. hv_pkt_iter_first() copies the packet at the head of the ring to
 * memory of the guest's own before anything in it is believed. The copy stays
 * valid until the iterator moves on, so a reader takes its bytes from there,
 * in as many pieces as it likes, and no further copy is made. The host learns
 * of the room that was freed when synthrdp_pipe_publish() is called, once for
 * all packets of one read.
 *
 * Sending. The ring is full when a packet does not fit with at least one byte
 * to spare. A waiter for room leaves what it needs in pending_send_sz; the
 * host signals once more room than that is free. The recheck behind the full
 * barrier catches a host that made room before it saw the wish.
 */

#include <linux/align.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "pipe.h"
#include "trace.h"

/* VMBus ends each packet in a ring with the 64-bit offset of its start. */
#define PKT_TRAILER	sizeof(u64)

/*
 * Longest packet that the ring code is to copy: the longest that the protocol
 * allows and 8 bytes more, so that one of just this length was cut.
 */
#define MAX_PACKET	(sizeof(struct vmpacket_descriptor) +		\
			 sizeof(struct synthrdp_pipe_header) +		\
			 SYNTHRDP_PIPE_MAX_DATA + 8)

/* Bytes that a packet with @len bytes of data takes in the ring */
static u32 ring_bytes(u32 len)
{
	return sizeof(struct vmpacket_descriptor) +
	       ALIGN(sizeof(struct synthrdp_pipe_header) + len, 8) +
	       PKT_TRAILER;
}

/**
 * synthrdp_pipe_offered() - is the channel one that the host offers?
 * @channel: the channel
 *
 * The bus keeps those that it knew before hibernation, offered again or not.
 *
 * Return: whether it can be opened.
 */
bool synthrdp_pipe_offered(struct vmbus_channel *channel)
{
	return READ_ONCE(channel->offermsg.child_relid) != INVALID_RELID;
}

/**
 * synthrdp_pipe_open() - open a channel as a pipe
 * @pipe: pipe to set up
 * @channel: channel to open
 * @counters: counters to update; they outlive the pipe
 * @mode: HV_CALL_BATCHED if @callback empties the ring, else HV_CALL_DIRECT
 * @callback: called in softirq context when the host signals, possibly before
 *	this function has returned
 * @context: argument of @callback
 *
 * Sleeps until the host has answered; a rescind ends the wait.
 *
 * Return: 0, or -ENOMEM, or -ENODEV when the host refused or withdrew the
 * channel.
 */
int synthrdp_pipe_open(struct synthrdp_pipe *pipe,
		       struct vmbus_channel *channel,
		       struct synthrdp_counters *counters,
		       enum hv_callback_mode mode,
		       void (*callback)(void *context), void *context)
{
	int ret;

	/*
	 * The ring is mapped twice in a row: a packet that is copied from its
	 * end must not reach beyond the second mapping, whatever length the
	 * host claims.
	 */
	BUILD_BUG_ON(SYNTHRDP_RING_SIZE - sizeof(struct hv_ring_buffer) <
		     MAX_PACKET);

	/* vmbus_open() would wait for an answer for ever. */
	if (!synthrdp_pipe_offered(channel))
		return -ENODEV;

	*pipe = (struct synthrdp_pipe) {
		.channel = channel,
		.counters = counters,
	};
	synthrdp_event_init(&pipe->rx_event);
	synthrdp_event_init(&pipe->tx_event);
	pipe->tx_packet = kvmalloc(struct_size(pipe->tx_packet, data,
					       SYNTHRDP_PIPE_MAX_DATA),
				   GFP_KERNEL);
	if (!pipe->tx_packet)
		return -ENOMEM;

	/* Without this a packet above 4096 bytes loses its place in the ring. */
	channel->max_pkt_size = MAX_PACKET;
	set_channel_read_mode(channel, mode);

	ret = vmbus_open(channel, SYNTHRDP_RING_SIZE, SYNTHRDP_RING_SIZE,
			 NULL, 0, callback, context);
	if (ret) {
		/* There is nothing to close, but this takes callback back. */
		vmbus_close(channel);
		kvfree(pipe->tx_packet);
		/* A host that refuses is -EAGAIN, -EDQUOT, -ENOBUFS, ... */
		return ret == -ENOMEM ? ret : -ENODEV;
	}

	return 0;
}

/**
 * synthrdp_pipe_close() - close the channel and free the rings
 * @pipe: pipe that was opened
 *
 * The callback does not run, and will not run, once this returns.
 */
void synthrdp_pipe_close(struct synthrdp_pipe *pipe)
{
	vmbus_close(pipe->channel);
	kvfree(pipe->tx_packet);
	pipe->tx_packet = NULL;
	pipe->channel = NULL;
}

/* Bytes in the inbound ring from the iterator's place on */
static u32 rx_avail(const struct hv_ring_buffer_info *ring)
{
	u32 write_index = READ_ONCE(ring->ring_buffer->write_index);
	u32 read_index = ring->priv_read_index;

	if (write_index >= ring->ring_datasize)
		return 0;
	if (write_index < read_index)
		write_index += ring->ring_datasize;

	return write_index - read_index;
}

/*
 * The host has broken the protocol. What is left in the ring is not read any
 * more: the bus must not call back until it is.
 */
static int rx_break(struct synthrdp_pipe *pipe)
{
	pipe->rx_broken = true;
	set_channel_read_mode(pipe->channel, HV_CALL_DIRECT);
	atomic64_inc(&pipe->counters->rx_malformed);

	return -EPROTO;
}

/*
 * Make @desc, which the ring code has copied and whose length and offset it
 * has made consistent, the packet being read.
 */
static int rx_accept(struct synthrdp_pipe *pipe,
		     struct vmpacket_descriptor *desc)
{
	struct hv_ring_buffer_info *ring = &pipe->channel->inbound;
	u32 len = desc->len8 << 3;
	u32 offset = desc->offset8 << 3;
	int size = -EPROTO;

	/*
	 * The ring code shortens a packet that is longer than MAX_PACKET, and
	 * one that claims to be longer than what the host has written. What
	 * would be read behind such a packet is not the start of another: it
	 * may even be old bytes.
	 *
	 * And a host that has sent more than a ring since it was last given
	 * room back has written over what was not yet read. Reading on could
	 * go on for ever.
	 */
	if (desc->type == VM_PKT_DATA_INBAND && len < MAX_PACKET &&
	    len + PKT_TRAILER <= rx_avail(ring) &&
	    len + PKT_TRAILER + pipe->rx_unpublished <= ring->ring_datasize)
		size = synthrdp_pipe_data_size((u8 *)desc + offset,
					       len - offset);
	if (size < 0)
		return rx_break(pipe);

	pipe->rx_desc = desc;
	pipe->rx_data = (u8 *)desc + offset +
			sizeof(struct synthrdp_pipe_header);
	pipe->rx_left = size;
	atomic64_inc(&pipe->counters->rx_packets);
	atomic64_add(size, &pipe->counters->rx_bytes);
	trace_synthrdp_packet(pipe, false, size);

	return 0;
}

/**
 * synthrdp_pipe_peek() - look at the data at the head of the pipe
 * @pipe: the pipe
 * @data: set to the data, valid until it is consumed or the pipe is closed
 *
 * Return: bytes at @data that belong to the current packet, which is 0 for an
 * empty packet; -EAGAIN when nothing is there; -EPROTO when what is there is
 * malformed, and ever after.
 */
int synthrdp_pipe_peek(struct synthrdp_pipe *pipe, const void **data)
{
	struct vmpacket_descriptor *desc;
	u32 avail;
	int ret;

	if (pipe->rx_broken)
		return -EPROTO;

	if (!pipe->rx_desc) {
		desc = pipe->rx_next ?: hv_pkt_iter_first(pipe->channel);
		if (!desc) {
			avail = rx_avail(&pipe->channel->inbound);
			/* The host writes whole packets: no part of one. */
			if (avail && avail < sizeof(*desc))
				return rx_break(pipe);
			return -EAGAIN;
		}
		pipe->rx_next = NULL;

		ret = rx_accept(pipe, desc);
		if (ret)
			return ret;
	}

	*data = pipe->rx_data;
	return pipe->rx_left;
}

/**
 * synthrdp_pipe_consume() - take data off the head of the pipe
 * @pipe: the pipe
 * @len: how much, at most what synthrdp_pipe_peek() last returned
 *
 * A packet whose data has been consumed is left behind, an empty one at once.
 */
void synthrdp_pipe_consume(struct synthrdp_pipe *pipe, u32 len)
{
	pipe->rx_data += len;
	pipe->rx_left -= len;
	if (pipe->rx_left)
		return;

	pipe->rx_unpublished += (pipe->rx_desc->len8 << 3) + PKT_TRAILER;
	pipe->rx_next = __hv_pkt_iter_next(pipe->channel, pipe->rx_desc);
	pipe->rx_desc = NULL;
}

/**
 * synthrdp_pipe_publish() - give the room of consumed packets to the host
 * @pipe: the pipe
 *
 * To be called before sleeping: a host waits for this room, and only after it
 * does an empty ring look empty to the host, so that the next packet signals.
 * A packet that the host wrote just before did not signal; then this does.
 */
void synthrdp_pipe_publish(struct synthrdp_pipe *pipe)
{
	if (!pipe->rx_unpublished)
		return;

	hv_pkt_iter_close(pipe->channel);
	pipe->rx_unpublished = 0;

	/*
	 * The read index first, then the look. Pairs with the host, who writes
	 * the packet first, then looks whether the ring was empty.
	 */
	virt_mb();
	if (pipe->rx_desc || pipe->rx_next ||
	    rx_avail(&pipe->channel->inbound))
		synthrdp_event_signal(&pipe->rx_event);
}

/* Free bytes in the outbound ring, or -EPROTO if its indices are nonsense */
static int tx_avail(struct synthrdp_pipe *pipe)
{
	struct hv_ring_buffer_info *ring = &pipe->channel->outbound;
	u32 read_index = READ_ONCE(ring->ring_buffer->read_index);
	u32 write_index = READ_ONCE(ring->ring_buffer->write_index);

	if (read_index >= ring->ring_datasize ||
	    write_index >= ring->ring_datasize)
		return -EPROTO;
	if (write_index >= read_index)
		read_index += ring->ring_datasize;

	return read_index - write_index;
}

/* Is there more room than the most modest waiter asked for? */
static bool tx_fulfilled(struct synthrdp_pipe *pipe, int avail)
{
	u32 wanted = READ_ONCE(pipe->tx_wanted);

	return wanted && (avail < 0 || avail > wanted);
}

/**
 * synthrdp_pipe_room() - how much can be sent now
 * @pipe: the pipe
 *
 * Return: the most data that one packet can carry into the ring as it is now,
 * 0 to SYNTHRDP_PIPE_MAX_DATA; -EPROTO if the host has spoiled the ring.
 */
int synthrdp_pipe_room(struct synthrdp_pipe *pipe)
{
	int avail = tx_avail(pipe);

	/* Take the wish back; all who wait look again, and wish again. */
	if (tx_fulfilled(pipe, avail)) {
		WRITE_ONCE(pipe->tx_wanted, 0);
		set_channel_pending_send_size(pipe->channel, 0);
		synthrdp_event_signal(&pipe->tx_event);
	}

	if (avail < 0)
		return avail;

	/* The ring may never become quite full: that would look empty. */
	if (avail <= ring_bytes(1))
		return 0;

	return min_t(int, ALIGN_DOWN(avail - 1, 8) - ring_bytes(0),
		     SYNTHRDP_PIPE_MAX_DATA);
}

/**
 * synthrdp_pipe_want_room() - ask the host to signal when there is room
 * @pipe: the pipe
 * @len: data that the packet would carry, 1 to SYNTHRDP_PIPE_MAX_DATA
 *
 * Of several wishes the smallest holds until it has been fulfilled.
 *
 * Return: synthrdp_pipe_room() once the host can see the wish. Only if this is
 * 0 or more, and below @len, will there be a signal, and the caller may sleep.
 */
int synthrdp_pipe_want_room(struct synthrdp_pipe *pipe, u32 len)
{
	u32 wanted = ring_bytes(len);
	int room;

	do {
		if (!pipe->tx_wanted || wanted < pipe->tx_wanted) {
			WRITE_ONCE(pipe->tx_wanted, wanted);
			set_channel_pending_send_size(pipe->channel, wanted);
		}

		/* The host must see it before we look at its read index. */
		virt_mb();

		/* Fulfilling a smaller wish takes the larger back with it. */
		room = synthrdp_pipe_room(pipe);
	} while (room >= 0 && room < len && !pipe->tx_wanted);

	return room;
}

/**
 * synthrdp_pipe_want_empty() - ask the host to signal when it has read it all
 * @pipe: the pipe; nobody sends any more
 *
 * Return: true if there is nothing to wait for: the host has read everything,
 * or spoiled the ring.
 */
bool synthrdp_pipe_want_empty(struct synthrdp_pipe *pipe)
{
	/* "More than all but one byte" is the whole ring. */
	u32 wanted = pipe->channel->outbound.ring_datasize - 1;

	if (pipe->tx_wanted != wanted) {
		WRITE_ONCE(pipe->tx_wanted, wanted);
		set_channel_pending_send_size(pipe->channel, wanted);
	}

	/* The host must see it before we look at its read index. */
	virt_mb();

	return tx_fulfilled(pipe, tx_avail(pipe));
}

/**
 * synthrdp_pipe_send() - send the packet in the staging area
 * @pipe: the pipe, with the data in its tx_packet
 * @len: bytes of data, at most what synthrdp_pipe_room() last returned
 *
 * Return: 0, -ENODEV if the host has withdrawn the channel, -EPROTO if it has
 * spoiled the ring.
 */
int synthrdp_pipe_send(struct synthrdp_pipe *pipe, u32 len)
{
	struct synthrdp_pipe_packet *packet = pipe->tx_packet;
	int ret;

	packet->header.type = cpu_to_le32(SYNTHRDP_PIPE_DATA);
	packet->header.data_size = cpu_to_le32(len);

	ret = vmbus_sendpacket(pipe->channel, packet,
			       struct_size(packet, data, len), 0,
			       VM_PKT_DATA_INBAND, 0);
	/* There was room, so that any other failure is the host's doing. */
	if (ret)
		return ret == -ENODEV ? ret : -EPROTO;

	atomic64_inc(&pipe->counters->tx_packets);
	atomic64_add(len, &pipe->counters->tx_bytes);
	trace_synthrdp_packet(pipe, true, len);

	return 0;
}

/**
 * synthrdp_pipe_signalled() - the host has signalled: wake whom it concerns
 * @pipe: the pipe
 *
 * For the channel callback of a pipe that is read and written by others.
 */
void synthrdp_pipe_signalled(struct synthrdp_pipe *pipe)
{
	synthrdp_event_signal(&pipe->rx_event);

	/* There is no ring yet, maybe; but then nobody wants room in it. */
	if (READ_ONCE(pipe->tx_wanted) && tx_fulfilled(pipe, tx_avail(pipe)))
		synthrdp_event_signal(&pipe->tx_event);
}
