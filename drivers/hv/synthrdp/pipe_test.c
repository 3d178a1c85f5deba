// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite of the pipe: the kernel's own ring code on a channel whose other
 * end is this file. The host here may do what no real one would.
 *
 * Has to run in a guest of Hyper-V, or of something that looks like it: the
 * kernel signals the host by a hypercall. The host knows no such channel and
 * refuses the call, which the kernel ignores; what counts here is that it was
 * made.
 */

/* The events belong to the driver's own module. */
#define NOTRACE

#include <asm/mshyperv.h>
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/hyperv.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

/* What the driver calls, and the host or the machine answers */
static int fake_vmbus_open(struct vmbus_channel *channel, u32 send_size,
			   u32 recv_size, void *userdata, u32 userdata_len,
			   void (*callback)(void *context), void *context);
static void fake_vmbus_close(struct vmbus_channel *channel);
static void fake_barrier(void);

#define vmbus_open	fake_vmbus_open
#define vmbus_close	fake_vmbus_close
#undef virt_mb
#define virt_mb()	fake_barrier()	/* see there */

#include "protocol.c"
#include "pipe.c"

#define LARGEST		SYNTHRDP_PIPE_MAX_DATA
#define DESCRIPTOR	16
#define HEADER		8
#define TRAILER		8

/**
 * struct fake - a channel, the pipe on it, and the host
 * @channel: must come first
 * @pipe: the pipe under test
 * @counters: the pipe's counters
 * @pages: memory of both rings
 * @order: of @pages
 * @open_result: what vmbus_open() is to return
 * @opens: how often it was called
 * @closes: how often vmbus_close() was called
 * @at_barrier: runs when the driver has made a wish that the host can see, and
 *	has not looked again
 * @buffer: for the host to build packets in, and receive into
 */
struct fake {
	struct vmbus_channel channel;
	struct synthrdp_pipe pipe;
	struct synthrdp_counters counters;
	struct page *pages;
	unsigned int order;
	int open_result;
	int opens;
	int closes;
	void (*at_barrier)(struct fake *fake);
	u8 buffer[LARGEST + 64];
};

/* Of the test that runs; there is one at a time. */
static struct fake *fake_now;

/* What data is made of, so that any piece in the wrong place is noticed */
static u8 pattern[3 * LARGEST + 64];

static void fill_pattern(void)
{
	u32 value = 1;
	int i;

	for (i = 0; i < sizeof(pattern); i++) {
		value = value * 1664525 + 1013904223;
		pattern[i] = value >> 24;
	}
}

/* Map a ring as the kernel does: its data twice, one behind the other. */
static int fake_ring(struct hv_ring_buffer_info *ring, struct page *pages,
		     u32 size, u32 packet_size)
{
	u32 count = size >> PAGE_SHIFT, i;
	struct page **twice;

	twice = kcalloc(count * 2 - 1, sizeof(*twice), GFP_KERNEL);
	if (!twice)
		return -ENOMEM;
	twice[0] = pages;
	for (i = 0; i < 2 * (count - 1); i++)
		twice[i + 1] = &pages[i % (count - 1) + 1];
	ring->ring_buffer = vmap(twice, count * 2 - 1, VM_MAP, PAGE_KERNEL);
	kfree(twice);
	if (!ring->ring_buffer)
		return -ENOMEM;

	ring->ring_buffer->feature_bits.feat_pending_send_sz = 1;
	ring->ring_size = size;
	ring->ring_datasize = size - sizeof(struct hv_ring_buffer);
	ring->priv_read_index = 0;
	spin_lock_init(&ring->ring_lock);
	if (packet_size) {
		ring->pkt_buffer = kzalloc(packet_size, GFP_KERNEL);
		if (!ring->pkt_buffer)
			return -ENOMEM;
		ring->pkt_buffer_size = packet_size;
	}

	return 0;
}

static int fake_vmbus_open(struct vmbus_channel *channel, u32 send_size,
			   u32 recv_size, void *userdata, u32 userdata_len,
			   void (*callback)(void *context), void *context)
{
	struct fake *fake = (struct fake *)channel;
	int ret;

	fake->opens++;
	/* The kernel calls it from here on: a signal may come late, or early. */
	callback(context);
	if (fake->open_result)
		return fake->open_result;

	if (!channel->max_pkt_size)
		channel->max_pkt_size = VMBUS_DEFAULT_MAX_PKT_SIZE;
	fake->order = get_order(send_size + recv_size);
	fake->pages = alloc_pages(GFP_KERNEL | __GFP_ZERO, fake->order);
	if (!fake->pages)
		return -ENOMEM;
	ret = fake_ring(&channel->outbound, fake->pages, send_size, 0);
	if (!ret)
		ret = fake_ring(&channel->inbound,
				fake->pages + (send_size >> PAGE_SHIFT),
				recv_size, channel->max_pkt_size);

	return ret;
}

static void fake_vmbus_close(struct vmbus_channel *channel)
{
	struct fake *fake = (struct fake *)channel;

	fake->closes++;
	if (!fake->pages)
		return;

	vunmap(channel->outbound.ring_buffer);
	vunmap(channel->inbound.ring_buffer);
	kfree(channel->inbound.pkt_buffer);
	channel->outbound.ring_buffer = NULL;
	channel->inbound.ring_buffer = NULL;
	channel->inbound.pkt_buffer = NULL;
	__free_pages(fake->pages, fake->order);
	fake->pages = NULL;
}

static void fake_barrier(void)
{
	smp_mb();	/* what virt_mb() is */
	if (fake_now->at_barrier)
		fake_now->at_barrier(fake_now);
}

static void on_channel(void *context)
{
	struct fake *fake = context;

	synthrdp_pipe_signalled(&fake->pipe);
}

static int open_fake(struct fake *fake)
{
	return synthrdp_pipe_open(&fake->pipe, &fake->channel, &fake->counters,
				  HV_CALL_DIRECT, on_channel, fake);
}

static int pipe_init(struct kunit *test)
{
	struct fake *fake;

	KUNIT_ASSERT_TRUE_MSG(test, hv_is_hyperv_initialized(),
			      "not a guest of Hyper-V");
	fill_pattern();
	fake = kvzalloc(sizeof(*fake), GFP_KERNEL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fake);
	/* Signals by hypercall alone, not by bits in pages shared by all. */
	fake->channel.is_dedicated_interrupt = true;
	test->priv = fake;
	fake_now = fake;
	KUNIT_ASSERT_EQ(test, open_fake(fake), 0);

	return 0;
}

static void pipe_exit(struct kunit *test)
{
	struct fake *fake = test->priv;

	if (!fake)
		return;
	if (fake->pages)
		synthrdp_pipe_close(&fake->pipe);
	kvfree(fake);
}

static u32 ring_size(struct fake *fake)
{
	return fake->channel.inbound.ring_datasize;
}

/* Both rings empty, and the next packet of either at @offset */
static void rings_at(struct fake *fake, u32 offset)
{
	struct hv_ring_buffer_info *in = &fake->channel.inbound;
	struct hv_ring_buffer_info *out = &fake->channel.outbound;

	in->priv_read_index = offset;
	in->ring_buffer->read_index = offset;
	in->ring_buffer->write_index = offset;
	out->ring_buffer->read_index = offset;
	out->ring_buffer->write_index = offset;
}

static u32 forward(u32 index, u32 bytes, u32 size)
{
	return (index + bytes) % size;
}

/*
 * The host's pen: @len bytes of a packet, as they are, and the trailer. The
 * second mapping takes what reaches beyond the end.
 */
static void host_put(struct fake *fake, const void *packet, u32 len)
{
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	u32 at = ring->write_index;

	memcpy(ring->buffer + at, packet, len);
	memset(ring->buffer + at + len, 0xdd, TRAILER);
	/* As the host: the packet first. */
	smp_store_release(&ring->write_index,
			  forward(at, len + TRAILER, ring_size(fake)));
}

/* A packet in the making: descriptor, pipe header, data. Returns its length. */
static u32 host_build(struct fake *fake, const void *data, u32 len)
{
	struct vmpacket_descriptor *desc = (void *)fake->buffer;
	struct synthrdp_pipe_header *header =
		(void *)fake->buffer + DESCRIPTOR;
	u32 total = DESCRIPTOR + ALIGN(HEADER + len, 8);

	memset(fake->buffer, 0, DESCRIPTOR);
	desc->type = VM_PKT_DATA_INBAND;
	desc->offset8 = DESCRIPTOR / 8;
	desc->len8 = total / 8;
	header->type = cpu_to_le32(1);
	header->data_size = cpu_to_le32(len);
	memcpy(header + 1, data, len);
	memset(fake->buffer + DESCRIPTOR + HEADER + len, 0xdd,
	       total - DESCRIPTOR - HEADER - len);

	return total;
}

static void host_send(struct fake *fake, const void *data, u32 len)
{
	u32 total = host_build(fake, data, len);

	host_put(fake, fake->buffer, total);
}

/*
 * The host's eye: take the next packet, check all of it but the data, which
 * goes to the buffer. Returns its length, or -1 when there is none.
 */
static int host_receive(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;
	u32 at = ring->read_index, total, len;
	const struct vmpacket_descriptor *desc = (void *)ring->buffer + at;
	const struct synthrdp_pipe_header *header =
		(void *)ring->buffer + at + DESCRIPTOR;

	if (READ_ONCE(ring->write_index) == at)
		return -1;

	KUNIT_EXPECT_EQ(test, desc->type, VM_PKT_DATA_INBAND);
	KUNIT_EXPECT_EQ(test, desc->offset8, 2);
	KUNIT_EXPECT_EQ(test, desc->flags, 0);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(header->type), 1);
	total = desc->len8 * 8;
	len = le32_to_cpu(header->data_size);
	KUNIT_ASSERT_LE(test, len, (u32)LARGEST);
	KUNIT_EXPECT_EQ(test, total, DESCRIPTOR + ALIGN(HEADER + len, 8));
	memcpy(fake->buffer, header + 1, len);
	ring->read_index = forward(at, total + TRAILER, ring_size(fake));

	return len;
}

/* Read what is there, in pieces of at most @piece; returns how much it was. */
static int guest_read(struct kunit *test, u8 *to, u32 size, u32 piece)
{
	struct fake *fake = test->priv;
	u32 done = 0, part;
	const void *data;
	int len;

	while ((len = synthrdp_pipe_peek(&fake->pipe, &data)) >= 0) {
		part = min_t(u32, piece, len);
		KUNIT_ASSERT_LE(test, done + part, size);
		memcpy(to + done, data, part);
		synthrdp_pipe_consume(&fake->pipe, part);
		done += part;
	}
	synthrdp_pipe_publish(&fake->pipe);

	return len == -EAGAIN ? done : len;
}

static void expect_data(struct kunit *test, const void *data, int len,
			const void *expected, int expected_len,
			const char *what, u32 a, u32 b)
{
	KUNIT_ASSERT_EQ_MSG(test, len, expected_len, "%s %u, %u", what, a, b);
	KUNIT_ASSERT_EQ_MSG(test, memcmp(data, expected, len), 0, "%s %u, %u",
			    what, a, b);
}

/* Opening and closing */

static void open_prepares_the_channel(struct kunit *test)
{
	struct fake *fake = test->priv;

	KUNIT_EXPECT_GE(test, fake->channel.max_pkt_size,
			(u32)(DESCRIPTOR + HEADER + LARGEST));
	KUNIT_EXPECT_EQ(test, fake->channel.callback_mode, HV_CALL_DIRECT);
	KUNIT_EXPECT_GE(test, ring_size(fake),
			(u32)(3 * (DESCRIPTOR + HEADER + LARGEST + TRAILER)));
	KUNIT_EXPECT_EQ(test, fake->channel.outbound.ring_buffer->pending_send_sz,
			0);
	synthrdp_pipe_close(&fake->pipe);
	KUNIT_EXPECT_EQ(test, fake->closes, 1);
}

static void open_that_fails(struct kunit *test)
{
	static const int results[][2] = {
		{ -EAGAIN, -ENODEV },	/* refused */
		{ -EDQUOT, -ENODEV },	/* the same with a GPADL */
		{ -ENODEV, -ENODEV },	/* rescinded */
		{ -ENOMEM, -ENOMEM },
	};
	struct fake *fake = test->priv;
	int i;

	for (i = 0; i < ARRAY_SIZE(results); i++) {
		synthrdp_pipe_close(&fake->pipe);
		fake->open_result = results[i][0];
		fake->closes = 0;
		KUNIT_EXPECT_EQ(test, open_fake(fake), results[i][1]);
		/* Otherwise the kernel goes on calling the callback. */
		KUNIT_EXPECT_EQ(test, fake->closes, 1);
		fake->open_result = 0;
		KUNIT_ASSERT_EQ(test, open_fake(fake), 0);
	}
}

/* After hibernation, when the host has not offered the channel again */
static void open_without_an_offer(struct kunit *test)
{
	struct fake *fake = test->priv;

	synthrdp_pipe_close(&fake->pipe);
	fake->channel.offermsg.child_relid = INVALID_RELID;
	fake->opens = 0;
	KUNIT_EXPECT_EQ(test, open_fake(fake), -ENODEV);
	KUNIT_EXPECT_EQ(test, fake->opens, 0);
}

/* Receiving */

static void rx_each_size(struct kunit *test)
{
	struct fake *fake = test->priv;
	u8 *to = kunit_kmalloc(test, LARGEST, GFP_KERNEL);
	const u8 *from;
	u32 len;

	for (len = 0; len <= LARGEST; len++) {
		from = pattern + len % 251;
		host_send(fake, from, len);
		expect_data(test, to, guest_read(test, to, LARGEST, LARGEST),
			    from, len, "packet", len, 0);
	}
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_packets),
			LARGEST + 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_bytes),
			(s64)LARGEST * (LARGEST + 1) / 2);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_malformed), 0);
}

/*
 * Each of 16,384 packets by each of as many reads would be more than a terabyte
 * to copy. What a copy depends on is what is left of the packet and of the
 * buffer: hence all pairs of small ones, and of those next to where something
 * changes (a word, a page, the largest packet). The next test has each read.
 */
static void rx_each_size_in_pieces(struct kunit *test)
{
	static const u32 sizes[] = { 1, 2, 3, 7, 8, 9, 63, 64, 4095, 4096, 4097,
				     8192, 16375, 16376, 16383, 16384 };
	struct fake *fake = test->priv;
	u8 *to = kunit_kmalloc(test, 3 * LARGEST, GFP_KERNEL);
	u32 len, piece, i, k;

	for (len = 0; len <= 40; len++) {
		for (piece = 1; piece <= 41; piece++) {
			host_send(fake, pattern, len);
			host_send(fake, pattern + len, 0);
			host_send(fake, pattern + len, 3);
			expect_data(test, to, guest_read(test, to, LARGEST,
							 piece),
				    pattern, len + 3, "packet, piece", len,
				    piece);
		}
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (k = 3; k < ARRAY_SIZE(sizes); k++) {
			host_send(fake, pattern, sizes[i]);
			host_send(fake, pattern + sizes[i], sizes[k]);
			expect_data(test, to, guest_read(test, to, 3 * LARGEST,
							 sizes[k]),
				    pattern, sizes[i] + sizes[k],
				    "packet, piece", sizes[i], sizes[k]);
		}
	}
}

/* Each read meets packets that end just before it does, with it, and behind. */
static void rx_each_size_of_read(struct kunit *test)
{
	struct fake *fake = test->priv;
	u8 *to = kunit_kmalloc(test, 3 * LARGEST, GFP_KERNEL);
	u32 piece, len, sent;

	for (piece = 1; piece < LARGEST; piece += piece < 4200 ? 1 : 61) {
		for (len = piece - 1, sent = 0; len <= piece + 1; len++) {
			host_send(fake, pattern + sent, len);
			sent += len;
		}
		expect_data(test, to, guest_read(test, to, 3 * LARGEST, piece),
			    pattern, sent, "piece", piece, 0);
	}
}

/* The packet's end meets the ring's end at each place that it can. */
static void rx_wraps_at_each_offset(struct kunit *test)
{
	static const u32 sizes[] = { 0, 1, 8, 41, LARGEST };
	struct fake *fake = test->priv;
	u8 *to = kunit_kmalloc(test, 2 * LARGEST, GFP_KERNEL);
	u32 i, total, back;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		total = DESCRIPTOR + ALIGN(HEADER + sizes[i], 8) + TRAILER;
		for (back = 0; back <= total; back += 8) {
			rings_at(fake, (ring_size(fake) - back) %
				       ring_size(fake));
			host_send(fake, pattern, sizes[i]);
			host_send(fake, pattern + sizes[i], 5);
			expect_data(test, to, guest_read(test, to, 2 * LARGEST,
							 LARGEST),
				    pattern, sizes[i] + 5,
				    "packet, before the end", sizes[i], back);
		}
	}
}

/* As many packets as fit, and the last fills the ring up to the last 8 bytes. */
static void rx_of_a_full_ring(struct kunit *test)
{
	struct fake *fake = test->priv;
	u8 *to = kunit_kmalloc(test, 4 * LARGEST, GFP_KERNEL);
	u32 largest = DESCRIPTOR + HEADER + LARGEST + TRAILER;
	u32 start, room, last, i;

	for (start = 0; start < 3 * largest; start += largest / 2 + 8) {
		rings_at(fake, start);
		room = ring_size(fake);
		for (i = 0; room > largest; i++, room -= largest)
			host_send(fake, pattern + i, LARGEST);
		last = room - 8 - DESCRIPTOR - HEADER - TRAILER;
		host_send(fake, pattern + i, last);

		KUNIT_ASSERT_EQ(test, guest_read(test, to, 4 * LARGEST, 5000),
				(int)(i * LARGEST + last));
		while (i--)
			KUNIT_ASSERT_EQ(test, memcmp(to + i * LARGEST,
						     pattern + i, LARGEST), 0);
		KUNIT_EXPECT_EQ(test, fake->channel.inbound.ring_buffer->read_index,
				fake->channel.inbound.ring_buffer->write_index);
	}
}

/*
 * Quite full, which a ring may not be, it looks empty. One byte short of that
 * the last packet is one that the host cannot have written.
 */
static void rx_of_a_ring_too_full(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	u32 largest = DESCRIPTOR + HEADER + LARGEST + TRAILER, room, i;
	const void *data;

	for (room = ring_size(fake); room > largest; room -= largest)
		host_send(fake, pattern, LARGEST);
	host_send(fake, pattern, room - DESCRIPTOR - HEADER - TRAILER);
	KUNIT_ASSERT_EQ(test, ring->write_index, ring->read_index);
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EAGAIN);

	ring->write_index = ring_size(fake) - 1;
	for (i = 0; i < ring_size(fake) / largest; i++) {
		KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data),
				LARGEST);
		synthrdp_pipe_consume(&fake->pipe, LARGEST);
	}
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EPROTO);
}

/* Room is given back by publishing alone, and for whole packets alone. */
static void rx_publishes(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	const void *data;
	int i;

	for (i = 0; i < 3; i++)
		host_send(fake, pattern, 100);

	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 100);
	synthrdp_pipe_consume(&fake->pipe, 99);
	synthrdp_pipe_publish(&fake->pipe);
	KUNIT_EXPECT_EQ(test, ring->read_index, 0);
	synthrdp_pipe_consume(&fake->pipe, 1);
	KUNIT_EXPECT_EQ(test, ring->read_index, 0);
	synthrdp_pipe_publish(&fake->pipe);
	KUNIT_EXPECT_EQ(test, ring->read_index, 136);
	for (i = 1; i < 3; i++) {
		KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data),
				100);
		synthrdp_pipe_consume(&fake->pipe, 100);
	}
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EAGAIN);
	synthrdp_pipe_publish(&fake->pipe);
	KUNIT_EXPECT_EQ(test, ring->read_index, 3 * 136);
}

static void send_late(struct fake *fake)
{
	fake->at_barrier = NULL;
	host_send(fake, pattern, 1);
}

/*
 * Room is given back, then looked again: a packet that the host wrote to a ring
 * that did not look empty to it has not been signalled.
 */
static void rx_publish_wakes(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct synthrdp_event *event = &fake->pipe.rx_event;
	const void *data;
	int late, seq;

	for (late = 0; late < 2; late++) {
		host_send(fake, pattern, 1);
		KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data),
				1);
		synthrdp_pipe_consume(&fake->pipe, 1);
		KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data),
				-EAGAIN);
		seq = synthrdp_event_seq(event);
		fake->at_barrier = late ? send_late : NULL;
		synthrdp_pipe_publish(&fake->pipe);
		KUNIT_EXPECT_EQ(test, synthrdp_event_seq(event) != seq, late);
	}
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 1);
}

/*
 * A host that waits for room is signalled once, when it has got more than it
 * asked for; one that does not wait never is.
 */
static void rx_signals_a_host_that_waits(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	const u32 total = DESCRIPTOR + HEADER + 8000 + TRAILER;
	u32 free, wanted;
	const void *data;
	u64 before;
	int i;

	for (wanted = 2 * total - 8; wanted <= 2 * total + 8; wanted += 8) {
		rings_at(fake, 8 * wanted % ring_size(fake));
		for (i = 0; i < 7; i++)
			host_send(fake, pattern, 8000);
		ring->pending_send_sz = wanted;
		free = ring_size(fake) - 7 * total;
		for (i = 0; i < 7; i++) {
			before = fake->channel.sig_events;
			KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe,
								 &data), 8000);
			synthrdp_pipe_consume(&fake->pipe, 8000);
			synthrdp_pipe_publish(&fake->pipe);
			KUNIT_EXPECT_EQ_MSG(test, fake->channel.sig_events - before,
					    (u64)(free <= wanted &&
						  free + total > wanted),
					    "wanted %u, %u free", wanted, free);
			free += total;
		}
	}

	/* None waits, or it is too old to say so there. */
	before = fake->channel.sig_events;
	for (i = 0; i < 2; i++) {
		rings_at(fake, 0);
		ring->pending_send_sz = i ? ring_size(fake) - 50 : 0;
		ring->feature_bits.feat_pending_send_sz = !i;
		host_send(fake, pattern, 100);
		KUNIT_EXPECT_EQ(test, guest_read(test, fake->buffer, 100, 100),
				100);
		KUNIT_EXPECT_EQ(test, fake->channel.sig_events, before);
	}
}

/* Malformed input */

struct flaw {
	const char *name;
	int at;		/* where in the packet the bytes go */
	u32 size;	/* how many, 2 or 4 */
	u32 value;
};

/* Each changes a packet with 100 bytes of data: len8 is 16, offset8 is 2. */
static const struct flaw flaws[] = {
	{ "type 0", 0, 2, 0 },
	{ "type 1", 0, 2, 1 },
	{ "type synch", 0, 2, VM_PKT_SYNCH },
	{ "type transfer pages", 0, 2, VM_PKT_DATA_USING_XFER_PAGES },
	{ "type GPA direct", 0, 2, VM_PKT_DATA_USING_GPA_DIRECT },
	{ "type cancel", 0, 2, VM_PKT_CANCEL_REQUEST },
	{ "type completion", 0, 2, VM_PKT_COMP },
	{ "type 6 swapped", 0, 2, 0x0600 },
	{ "type 0xffff", 0, 2, 0xffff },
	{ "offset beyond pipe header", 2, 2, 3 },
	{ "offset at the end", 2, 2, 16 },
	{ "offset leaves half a header", 2, 2, 15 },
	{ "length 0", 4, 2, 0 },
	{ "length 1", 4, 2, 1 },
	{ "length of descriptor", 4, 2, 2 },
	{ "length without data", 4, 2, 3 },
	{ "length 8 short", 4, 2, 15 },
	{ "length 8 too long", 4, 2, 17 },
	{ "length beyond the largest", 4, 2, 2052 },
	{ "length of the ring", 4, 2, 8192 },
	{ "length 0xffff", 4, 2, 0xffff },
	{ "pipe type 0", 16, 4, 0 },
	{ "pipe type partial", 16, 4, 2 },
	{ "pipe type 3", 16, 4, 3 },
	{ "pipe type swapped", 16, 4, 0x01000000 },
	{ "pipe type 0xffffffff", 16, 4, 0xffffffff },
	{ "size beyond padding", 20, 4, 105 },
	{ "size 16385", 20, 4, 16385 },
	{ "size 2 GiB", 20, 4, 0x80000000 },
	{ "size that wraps", 20, 4, 0xfffffff8 },
	{ "size 0xffffffff", 20, 4, 0xffffffff },
};

static void flaw_name(const struct flaw *flaw, char *name)
{
	strscpy(name, flaw->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(flaws, flaws, flaw_name);

static void host_send_flawed(struct fake *fake, const struct flaw *flaw)
{
	u32 total = host_build(fake, pattern, 100);

	memcpy(fake->buffer + flaw->at, &flaw->value, flaw->size);
	host_put(fake, fake->buffer, total);
}

/* What came before is read; from the flaw on there is an error and no data. */
static void rx_malformed(struct kunit *test)
{
	const struct flaw *flaw = test->param_value;
	struct fake *fake = test->priv;
	const void *data;
	int i;

	host_send(fake, pattern, 10);
	host_send_flawed(fake, flaw);
	/*
	 * Enough for all lengths that are claimed, and legal: a length that is
	 * believed leads into the middle of these.
	 */
	for (i = 0; i < 3; i++)
		host_send(fake, pattern, LARGEST);

	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 10);
	KUNIT_EXPECT_EQ(test, memcmp(data, pattern, 10), 0);
	synthrdp_pipe_consume(&fake->pipe, 10);
	for (i = 0; i < 3; i++) {
		if (synthrdp_pipe_peek(&fake->pipe, &data) == -EPROTO)
			continue;
		/* A longer packet swallows what follows, and may be sound. */
		KUNIT_EXPECT_TRUE_MSG(test, flaw->at == 4 && flaw->value == 17,
				      "not noticed");
		return;
	}
	synthrdp_pipe_publish(&fake->pipe);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_malformed), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_packets), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.rx_bytes), 10);
}

/* The same as the last thing in the ring, where nothing lies behind it */
static void rx_malformed_at_the_end(struct kunit *test)
{
	const struct flaw *flaw = test->param_value;
	struct fake *fake = test->priv;
	const void *data;

	rings_at(fake, ring_size(fake) - 64);
	host_send_flawed(fake, flaw);
	fake->channel.callback_mode = HV_CALL_BATCHED;
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EPROTO);
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EPROTO);
	/* The bus does not call again and again for what is left. */
	KUNIT_EXPECT_EQ(test, fake->channel.callback_mode, HV_CALL_DIRECT);
}

/* The 16-bit words of what precedes the data of a packet with 100 bytes */

struct word {
	const char *name;
	u32 at;
};

static const struct word words[] = {
	{ "type", 0 },
	{ "offset", 2 },
	{ "length", 4 },
	{ "flags", 6 },
	{ "pipe type", 16 },
	{ "pipe type's upper half", 18 },
	{ "size", 20 },
	{ "size's upper half", 22 },
};

static void word_name(const struct word *word, char *name)
{
	strscpy(name, word->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(words, words, word_name);

/* What such a packet is to be taken for if that word has this value */
static int verdict(u32 at, u32 value)
{
	switch (at) {
	case 0:
		return value == 6 ? 100 : -EPROTO;
	case 2:
		/* What is no offset at all the ring code takes for 16 bytes. */
		return value <= 2 || value > 16 ? 100 : -EPROTO;
	case 4:
		return value == 16 ? 100 : -EPROTO;
	case 6:
		return 100;
	case 16:
		return value == 1 ? 100 : -EPROTO;
	case 20:
		return value <= 104 ? value : -EPROTO;
	default:
		return value == 0 ? 100 : -EPROTO;
	}
}

/* Each word takes each value. */
static void rx_each_header(struct kunit *test)
{
	const struct word *word = test->param_value;
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	const void *data;
	u32 value;
	u16 *at;
	int len;

	host_send(fake, pattern, 100);
	at = (void *)ring->buffer + word->at;
	for (value = 0; value <= U16_MAX; value++) {
		*at = value;
		len = synthrdp_pipe_peek(&fake->pipe, &data);
		KUNIT_ASSERT_EQ_MSG(test, len, verdict(word->at, value),
				    "%#x", value);
		if (len > 0)
			KUNIT_ASSERT_EQ(test, memcmp(data, pattern, 100), 0);
		/* As new: the same packet again */
		fake->pipe.rx_desc = NULL;
		fake->pipe.rx_broken = false;
		fake->channel.inbound.priv_read_index = 0;
		if (!(value % 1024))
			cond_resched();
	}
}

/* What the rules allow beyond what hosts are known to do */
static void rx_unusual_but_sound(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct vmpacket_descriptor *desc = (void *)fake->buffer;
	u8 to[256];
	u32 total;

	/* Padding beyond what alignment asks for, which is no data. */
	total = host_build(fake, pattern, 100);
	desc->len8 += 10;
	host_put(fake, fake->buffer, total + 80);
	expect_data(test, to, guest_read(test, to, sizeof(to), 99),
		    pattern, 100, "more padding", 0, 0);

	/* A longer descriptor. */
	total = host_build(fake, pattern, 100);
	memmove(fake->buffer + 32, fake->buffer + 16, total - 16);
	memset(fake->buffer + 16, 0xff, 16);
	desc->offset8 += 2;
	desc->len8 += 2;
	host_put(fake, fake->buffer, total + 16);
	expect_data(test, to, guest_read(test, to, sizeof(to), 99),
		    pattern, 100, "longer descriptor", 0, 0);

	/* A completion is asked for, which pipes do not give. */
	total = host_build(fake, pattern, 100);
	desc->flags = VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED;
	desc->trans_id = ~0ULL;
	host_put(fake, fake->buffer, total);
	expect_data(test, to, guest_read(test, to, sizeof(to), 99),
		    pattern, 100, "completion", 0, 0);
}

/* No index that the host can write makes the guest read on for ever. */
static void rx_odd_write_index(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	const u32 indices[] = {
		1, 7, 8, 15, 16, 17, 23, ring_size(fake) - 1, ring_size(fake),
		ring_size(fake) + 8, 2 * ring_size(fake), 0x7fffffff,
		0x80000000, 0xfffffff8, 0xffffffff,
	};
	int i, rounds, len = 0;
	const void *data;

	for (i = 0; i < ARRAY_SIZE(indices); i++) {
		rings_at(fake, 0);
		ring->write_index = indices[i];
		for (rounds = 0; rounds < 10000; rounds++) {
			len = synthrdp_pipe_peek(&fake->pipe, &data);
			if (len < 0)
				break;
			synthrdp_pipe_consume(&fake->pipe, len);
		}
		KUNIT_EXPECT_EQ_MSG(test, len, -EPROTO, "write index %#x",
				    indices[i]);
		synthrdp_pipe_close(&fake->pipe);
		KUNIT_ASSERT_EQ(test, open_fake(fake), 0);
		ring = fake->channel.inbound.ring_buffer;
	}
}

/* A host that always looks ahead of the reader, whatever it has read */
static void rx_more_than_a_ring(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	u32 total = 0;
	const void *data;
	int i, len;

	/* The whole ring is packets, with no start and no end. */
	for (i = 0; i < ring_size(fake) / 32; i++)
		host_send(fake, pattern, 0);
	for (i = 0; i < 10 * ring_size(fake) / 32; i++) {
		ring->write_index = (fake->channel.inbound.priv_read_index +
				     ring_size(fake) - 32) % ring_size(fake);
		len = synthrdp_pipe_peek(&fake->pipe, &data);
		if (len < 0)
			break;
		synthrdp_pipe_consume(&fake->pipe, len);
		total += 32;
	}
	KUNIT_EXPECT_EQ(test, len, -EPROTO);
	KUNIT_EXPECT_LE(test, total, ring_size(fake));
}

/* What has been looked at stays as it was, whatever the host does to it. */
static void rx_packet_that_changes(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	const void *data;

	host_send(fake, pattern, 5000);
	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 5000);
	memset(ring->buffer, 0xff, ring_size(fake));
	KUNIT_EXPECT_EQ(test, memcmp(data, pattern, 5000), 0);
	synthrdp_pipe_consume(&fake->pipe, 4000);
	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 1000);
	KUNIT_EXPECT_EQ(test, memcmp(data, pattern + 4000, 1000), 0);
	synthrdp_pipe_consume(&fake->pipe, 1000);
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), -EAGAIN);

	/* A packet that was fetched behind another, and not yet looked at */
	rings_at(fake, 0);
	host_send(fake, pattern, 8);
	host_send(fake, pattern + 8, 5000);
	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 8);
	synthrdp_pipe_consume(&fake->pipe, 8);
	memset(ring->buffer, 0xff, ring_size(fake));
	KUNIT_ASSERT_EQ(test, synthrdp_pipe_peek(&fake->pipe, &data), 5000);
	KUNIT_EXPECT_EQ(test, memcmp(data, pattern + 8, 5000), 0);
}

/* Writes nonsense, and now and then sense, over ring and index. */
static int scribble(void *arg)
{
	struct fake *fake = arg;
	struct hv_ring_buffer *ring = fake->channel.inbound.ring_buffer;
	u32 size = ring_size(fake), value = 7, at;
	const u32 total = DESCRIPTOR + HEADER + 2000 + TRAILER;

	while (!kthread_should_stop()) {
		value = value * 1664525 + 1013904223;
		at = (value >> 8) % size;
		switch (value >> 29) {
		case 0:
			WRITE_ONCE(ring->write_index, value);
			break;
		case 1:
			WRITE_ONCE(ring->write_index, at);
			break;
		case 2:
			memset(ring->buffer + at, value, min(size - at, 5000U));
			break;
		default:
			at = READ_ONCE(ring->read_index) % size & ~7U;
			memcpy(ring->buffer + at, fake->buffer, total);
			WRITE_ONCE(ring->write_index, (at + total) % size);
			break;
		}
		if (!(value & 0xff00))
			cond_resched();
	}

	return 0;
}

/* Nothing is expected of the data: only that nothing worse happens. */
static void rx_under_attack(struct kunit *test)
{
	struct fake *fake = test->priv;
	unsigned long end = jiffies + 2 * HZ;
	struct task_struct *host;
	int len, rounds, sum = 0;
	const void *data;

	host_build(fake, pattern, 2000);
	while (time_before(jiffies, end)) {
		host = kthread_run(scribble, fake, "synthrdp-scribble");
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, host);
		for (rounds = 0; rounds < 20000; rounds++) {
			len = synthrdp_pipe_peek(&fake->pipe, &data);
			if (len == -EPROTO)
				break;
			if (len > LARGEST) {
				KUNIT_FAIL(test, "%d bytes", len);
				break;
			}
			while (len > 0)
				sum += ((const u8 *)data)[--len];
			if (len == 0) {
				len = synthrdp_pipe_peek(&fake->pipe, &data);
				synthrdp_pipe_consume(&fake->pipe, len);
			}
			if (rounds % 8 == 0)
				synthrdp_pipe_publish(&fake->pipe);
			cond_resched();
		}
		kthread_stop(host);
		synthrdp_pipe_close(&fake->pipe);
		KUNIT_ASSERT_EQ(test, open_fake(fake), 0);
	}
	OPTIMIZER_HIDE_VAR(sum);
}

/* Sending */

static int guest_send(struct fake *fake, const void *data, u32 len)
{
	memcpy(fake->pipe.tx_packet->data, data, len);

	return synthrdp_pipe_send(&fake->pipe, len);
}

static void tx_each_size(struct kunit *test)
{
	struct fake *fake = test->priv;
	const u8 *from;
	u32 len;

	for (len = 1; len <= LARGEST; len++) {
		from = pattern + len % 251;
		KUNIT_ASSERT_EQ(test, synthrdp_pipe_room(&fake->pipe), LARGEST);
		KUNIT_ASSERT_EQ(test, guest_send(fake, from, len), 0);
		expect_data(test, fake->buffer, host_receive(test), from, len,
			    "packet", len, 0);
		KUNIT_ASSERT_EQ(test, host_receive(test), -1);
	}
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.tx_packets),
			LARGEST);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.tx_bytes),
			(s64)LARGEST * (LARGEST + 1) / 2);
}

static void tx_wraps_at_each_offset(struct kunit *test)
{
	static const u32 sizes[] = { 1, 8, 41, LARGEST };
	struct fake *fake = test->priv;
	u32 i, total, back;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		total = ring_bytes(sizes[i]);
		for (back = 0; back <= total; back += 8) {
			rings_at(fake, (ring_size(fake) - back) %
				       ring_size(fake));
			KUNIT_ASSERT_EQ(test, guest_send(fake, pattern,
							 sizes[i]), 0);
			expect_data(test, fake->buffer, host_receive(test),
				    pattern, sizes[i],
				    "packet, before the end", sizes[i], back);
		}
	}
}

/* Leave @avail bytes in the ring to the host. */
static void leave_room(struct fake *fake, u32 start, u32 avail)
{
	rings_at(fake, start);
	fake->channel.outbound.ring_buffer->write_index =
		(start + ring_size(fake) - avail) % ring_size(fake);
}

/*
 * What is promised is what the ring takes, and not a byte less: the ring code
 * itself is asked. The host's index may be any, not only a multiple of 8.
 */
static void tx_room_is_exact(struct kunit *test)
{
	struct fake *fake = test->priv;
	const u32 largest = DESCRIPTOR + HEADER + LARGEST + TRAILER;
	const u32 around[] = { 0, 32, 40, 48, 4096, largest - 8, largest,
			       largest + 8, ring_size(fake) - 16 };
	u32 i, avail;
	int room;

	for (i = 0; i < ARRAY_SIZE(around); i++) {
		for (avail = around[i] ?: 1; avail <= around[i] + 16; avail++) {
			if (avail > ring_size(fake))
				break;
			leave_room(fake, 8, avail);
			room = synthrdp_pipe_room(&fake->pipe);
			KUNIT_ASSERT_GE(test, room, 0);
			KUNIT_ASSERT_LE(test, room, LARGEST);
			if (room < LARGEST)
				KUNIT_EXPECT_EQ_MSG(test,
						    guest_send(fake, pattern, room + 1),
						    -EPROTO, "%u free, room %d",
						    avail, room);
			if (room)
				KUNIT_EXPECT_EQ_MSG(test,
						    guest_send(fake, pattern, room),
						    0, "%u free, room %d",
						    avail, room);
		}
	}
}

/* Fill the ring with packets until it takes nothing more. */
static void tx_until_full(struct kunit *test)
{
	struct fake *fake = test->priv;
	u32 sent = 0, got = 0;
	int len, room;

	while ((room = synthrdp_pipe_room(&fake->pipe)) > 0) {
		KUNIT_ASSERT_EQ(test, guest_send(fake, pattern + sent % 16384,
						 room), 0);
		sent += room;
	}
	KUNIT_EXPECT_NE(test, fake->channel.outbound.ring_buffer->read_index,
			fake->channel.outbound.ring_buffer->write_index);
	KUNIT_EXPECT_LE(test, hv_get_bytes_to_write(&fake->channel.outbound),
			ring_bytes(1));

	while ((len = host_receive(test)) >= 0) {
		KUNIT_ASSERT_EQ(test, memcmp(fake->buffer,
					     pattern + got % 16384, len), 0);
		got += len;
	}
	KUNIT_EXPECT_EQ(test, got, sent);
}

/* The host is signalled when its ring was empty, unless it said not to. */
static void tx_signals(struct kunit *test)
{
	struct fake *fake = test->priv;
	u64 before = fake->channel.sig_events;

	guest_send(fake, pattern, 1);
	KUNIT_EXPECT_EQ(test, fake->channel.sig_events, before + 1);
	guest_send(fake, pattern, 1);
	KUNIT_EXPECT_EQ(test, fake->channel.sig_events, before + 1);
	host_receive(test);
	host_receive(test);
	guest_send(fake, pattern, 1);
	KUNIT_EXPECT_EQ(test, fake->channel.sig_events, before + 2);
	host_receive(test);
	fake->channel.outbound.ring_buffer->interrupt_mask = 1;
	guest_send(fake, pattern, 1);
	KUNIT_EXPECT_EQ(test, fake->channel.sig_events, before + 2);
}

static void tx_on_a_rescinded_channel(struct kunit *test)
{
	struct fake *fake = test->priv;

	fake->channel.rescind = true;
	KUNIT_EXPECT_EQ(test, guest_send(fake, pattern, 1), -ENODEV);
	KUNIT_EXPECT_EQ(test, atomic64_read(&fake->counters.tx_packets), 0);
	KUNIT_EXPECT_EQ(test, host_receive(test), -1);
}

static u32 wish(struct fake *fake)
{
	return READ_ONCE(fake->channel.outbound.ring_buffer->pending_send_sz);
}

/* The host reads so much that @avail bytes are free, and signals. */
static bool host_frees(struct fake *fake, u32 avail)
{
	int seq = synthrdp_event_seq(&fake->pipe.tx_event);
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;

	ring->read_index = (ring->write_index + avail) % ring_size(fake);
	synthrdp_pipe_signalled(&fake->pipe);

	return synthrdp_event_seq(&fake->pipe.tx_event) != seq;
}

static void tx_wish(struct kunit *test)
{
	static const int sizes[] = { 1, 8, 9, 100, LARGEST - 1, LARGEST };
	struct fake *fake = test->priv;
	int i, len;
	u32 total;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		len = sizes[i];
		total = ring_bytes(len);
		leave_room(fake, 0, 8);
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_want_room(&fake->pipe, len),
				0);
		KUNIT_EXPECT_EQ(test, wish(fake), total);

		/* Exactly as much is not enough: the ring may not get full. */
		KUNIT_EXPECT_FALSE(test, host_frees(fake, total));
		KUNIT_EXPECT_LT(test, synthrdp_pipe_room(&fake->pipe), len);
		KUNIT_EXPECT_EQ(test, wish(fake), total);

		KUNIT_EXPECT_TRUE(test, host_frees(fake, total + 8));
		KUNIT_EXPECT_GE(test, synthrdp_pipe_room(&fake->pipe), len);
		KUNIT_EXPECT_EQ(test, wish(fake), 0);
		KUNIT_EXPECT_FALSE(test, host_frees(fake, total + 16));
	}
}

/* Of two who wait, the modest one is woken first and neither is forgotten. */
static void tx_two_wishes(struct kunit *test)
{
	struct fake *fake = test->priv;
	int order;

	for (order = 0; order < 2; order++) {
		leave_room(fake, 0, 8);
		synthrdp_pipe_want_room(&fake->pipe, order ? 1 : LARGEST);
		synthrdp_pipe_want_room(&fake->pipe, order ? LARGEST : 1);
		KUNIT_EXPECT_EQ(test, wish(fake), ring_bytes(1));
		KUNIT_EXPECT_TRUE(test, host_frees(fake, ring_bytes(1) + 8));

		/* Both look again; the greedy one wishes again. */
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_want_room(&fake->pipe,
							      LARGEST), 8);
		KUNIT_EXPECT_EQ(test, wish(fake), ring_bytes(LARGEST));
		KUNIT_EXPECT_FALSE(test, host_frees(fake, 8000));
		KUNIT_EXPECT_TRUE(test, host_frees(fake, ring_size(fake)));
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_room(&fake->pipe), LARGEST);
		KUNIT_EXPECT_EQ(test, wish(fake), 0);
	}
}

/* Another's look at the room takes the wish back: whoever made it is woken. */
static void tx_wish_taken_back(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;
	int seq;

	leave_room(fake, 0, 8);
	synthrdp_pipe_want_room(&fake->pipe, 100);
	seq = synthrdp_event_seq(&fake->pipe.tx_event);
	ring->read_index = ring->write_index;
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_room(&fake->pipe), LARGEST);
	KUNIT_EXPECT_NE(test, synthrdp_event_seq(&fake->pipe.tx_event), seq);
	KUNIT_EXPECT_EQ(test, wish(fake), 0);
}

static void drain_all(struct fake *fake)
{
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;

	ring->read_index = ring->write_index;
}

static void drain_some(struct fake *fake)
{
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;

	ring->read_index = (ring->write_index + 4000) % ring_size(fake);
	fake->at_barrier = NULL;
}

/* The host makes room, and sees no wish, just before the wish is there. */
static void tx_wish_too_late(struct kunit *test)
{
	struct fake *fake = test->priv;

	leave_room(fake, 0, 8);
	fake->at_barrier = drain_all;
	KUNIT_EXPECT_EQ(test, synthrdp_pipe_want_room(&fake->pipe, LARGEST),
			LARGEST);
	KUNIT_EXPECT_EQ(test, wish(fake), 0);

	/* Another's smaller wish is fulfilled by that, this one is not. */
	fake->at_barrier = NULL;
	leave_room(fake, 0, 8);
	synthrdp_pipe_want_room(&fake->pipe, 1);
	fake->at_barrier = drain_some;
	KUNIT_EXPECT_LT(test, synthrdp_pipe_want_room(&fake->pipe, LARGEST),
			LARGEST);
	KUNIT_EXPECT_EQ(test, wish(fake), ring_bytes(LARGEST));

	fake->at_barrier = drain_all;
	leave_room(fake, 0, 8);
	KUNIT_EXPECT_TRUE(test, synthrdp_pipe_want_empty(&fake->pipe));
}

static void tx_want_empty(struct kunit *test)
{
	struct fake *fake = test->priv;

	KUNIT_EXPECT_TRUE(test, synthrdp_pipe_want_empty(&fake->pipe));
	leave_room(fake, 0, 8);
	synthrdp_pipe_want_room(&fake->pipe, 1);
	KUNIT_EXPECT_FALSE(test, synthrdp_pipe_want_empty(&fake->pipe));
	/* More than all but one byte is free: the host knows no better words. */
	KUNIT_EXPECT_EQ(test, wish(fake), ring_size(fake) - 1);
	KUNIT_EXPECT_FALSE(test, host_frees(fake, ring_size(fake) - 8));
	KUNIT_EXPECT_FALSE(test, synthrdp_pipe_want_empty(&fake->pipe));
	drain_all(fake);
	synthrdp_pipe_signalled(&fake->pipe);
	KUNIT_EXPECT_TRUE(test, synthrdp_pipe_want_empty(&fake->pipe));
}

/* A host that spoils the ring is an error, and nothing to wait for. */
static void tx_odd_read_index(struct kunit *test)
{
	struct fake *fake = test->priv;
	struct hv_ring_buffer *ring = fake->channel.outbound.ring_buffer;
	const u32 indices[] = {
		ring_size(fake), ring_size(fake) + 8, 0x7fffffff, 0x80000000,
		0xffffffff,
	};
	int i, seq;

	for (i = 0; i < ARRAY_SIZE(indices); i++) {
		leave_room(fake, 0, 8);
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_want_room(&fake->pipe, 1),
				0);
		seq = synthrdp_event_seq(&fake->pipe.tx_event);
		ring->read_index = indices[i];
		synthrdp_pipe_signalled(&fake->pipe);
		KUNIT_EXPECT_NE(test, synthrdp_event_seq(&fake->pipe.tx_event),
				seq);
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_room(&fake->pipe), -EPROTO);
		KUNIT_EXPECT_EQ(test, synthrdp_pipe_want_room(&fake->pipe, 1),
				-EPROTO);
		KUNIT_EXPECT_TRUE(test, synthrdp_pipe_want_empty(&fake->pipe));
		drain_all(fake);
		synthrdp_pipe_room(&fake->pipe);
	}
}

static void signal_wakes_readers(struct kunit *test)
{
	struct fake *fake = test->priv;
	int rx = synthrdp_event_seq(&fake->pipe.rx_event);
	int tx = synthrdp_event_seq(&fake->pipe.tx_event);

	synthrdp_pipe_signalled(&fake->pipe);
	KUNIT_EXPECT_NE(test, synthrdp_event_seq(&fake->pipe.rx_event), rx);
	KUNIT_EXPECT_EQ(test, synthrdp_event_seq(&fake->pipe.tx_event), tx);
}

static struct kunit_case pipe_cases[] = {
	KUNIT_CASE(open_prepares_the_channel),
	KUNIT_CASE(open_that_fails),
	KUNIT_CASE(open_without_an_offer),
	KUNIT_CASE(rx_each_size),
	KUNIT_CASE(rx_each_size_in_pieces),
	KUNIT_CASE(rx_each_size_of_read),
	KUNIT_CASE(rx_wraps_at_each_offset),
	KUNIT_CASE(rx_of_a_full_ring),
	KUNIT_CASE(rx_of_a_ring_too_full),
	KUNIT_CASE(rx_publishes),
	KUNIT_CASE(rx_publish_wakes),
	KUNIT_CASE(rx_signals_a_host_that_waits),
	KUNIT_CASE_PARAM(rx_each_header, words_gen_params),
	KUNIT_CASE_PARAM(rx_malformed, flaws_gen_params),
	KUNIT_CASE_PARAM(rx_malformed_at_the_end, flaws_gen_params),
	KUNIT_CASE(rx_unusual_but_sound),
	KUNIT_CASE(rx_odd_write_index),
	KUNIT_CASE(rx_more_than_a_ring),
	KUNIT_CASE(rx_packet_that_changes),
	KUNIT_CASE(rx_under_attack),
	KUNIT_CASE(tx_each_size),
	KUNIT_CASE(tx_wraps_at_each_offset),
	KUNIT_CASE(tx_room_is_exact),
	KUNIT_CASE(tx_until_full),
	KUNIT_CASE(tx_signals),
	KUNIT_CASE(tx_on_a_rescinded_channel),
	KUNIT_CASE(tx_wish),
	KUNIT_CASE(tx_two_wishes),
	KUNIT_CASE(tx_wish_taken_back),
	KUNIT_CASE(tx_wish_too_late),
	KUNIT_CASE(tx_want_empty),
	KUNIT_CASE(tx_odd_read_index),
	KUNIT_CASE(signal_wakes_readers),
	{ }
};

static struct kunit_suite pipe_suite = {
	.name = "synthrdp_pipe",
	.init = pipe_init,
	.exit = pipe_exit,
	.test_cases = pipe_cases,
};

kunit_test_suite(pipe_suite);

MODULE_DESCRIPTION("KUnit suite of hv_synthrdp's pipes");
MODULE_LICENSE("GPL");
