/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: every message, change of state, packet and wait.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM synthrdp

#if !defined(_SYNTHRDP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _SYNTHRDP_TRACE_H

#include <linux/hyperv.h>
#include <linux/tracepoint.h>

#include "protocol.h"

#define synthrdp_show_verdict(verdict)					\
	__print_symbolic(verdict,					\
		{ SYNTHRDP_ACCEPT,	"accept" },			\
		{ SYNTHRDP_REJECT,	"reject" },			\
		{ SYNTHRDP_CREATE,	"create-session" },		\
		{ SYNTHRDP_UNKNOWN,	"unknown" },			\
		{ SYNTHRDP_BAD_HEADER,	"bad-header" },			\
		{ SYNTHRDP_BAD_SIZE,	"bad-size" },			\
		{ SYNTHRDP_BAD_TYPE,	"bad-type" },			\
		{ SYNTHRDP_BAD_VERSION,	"bad-version" },		\
		{ SYNTHRDP_ERROR,	"error" })

/* The version request goes to the host */
TRACE_EVENT(synthrdp_request,
	TP_PROTO(u32 size),
	TP_ARGS(size),
	TP_STRUCT__entry(
		__field(u32, size)
	),
	TP_fast_assign(
		__entry->size = size;
	),
	TP_printk("size=%u", __entry->size)
);

/* A control message from the host, and what it was taken for */
TRACE_EVENT(synthrdp_message,
	TP_PROTO(const void *msg, u32 size, enum synthrdp_verdict verdict),
	TP_ARGS(msg, size, verdict),
	TP_STRUCT__entry(
		__field(u32, type)
		__field(u32, size)
		__field(int, verdict)
	),
	TP_fast_assign(
		const struct synthrdp_header *header = msg;

		__entry->type = size < sizeof(*header) ? U32_MAX :
				le32_to_cpu(header->type);
		__entry->size = size;
		__entry->verdict = verdict;
	),
	TP_printk("type=%u size=%u verdict=%s", __entry->type, __entry->size,
		  synthrdp_show_verdict(__entry->verdict))
);

/* The control channel's state changes */
TRACE_EVENT(synthrdp_state,
	TP_PROTO(const char *from, const char *to, const char *reason),
	TP_ARGS(from, to, reason),
	TP_STRUCT__entry(
		__array(char, from, 16)
		__array(char, to, 16)
		__array(char, reason, 48)
	),
	TP_fast_assign(
		strscpy(__entry->from, from, sizeof(__entry->from));
		strscpy(__entry->to, to, sizeof(__entry->to));
		strscpy(__entry->reason, reason, sizeof(__entry->reason));
	),
	TP_printk("%s -> %s: %s", __entry->from, __entry->to, __entry->reason)
);

/* A node is opened, or its conversation with the host ends */
TRACE_EVENT(synthrdp_session,
	TP_PROTO(int number, const char *what),
	TP_ARGS(number, what),
	TP_STRUCT__entry(
		__field(int, number)
		__array(char, what, 16)
	),
	TP_fast_assign(
		__entry->number = number;
		strscpy(__entry->what, what, sizeof(__entry->what));
	),
	TP_printk("synthrdp%d %s", __entry->number, __entry->what)
);

/* A pipe packet passes; size is that of its data */
TRACE_EVENT(synthrdp_packet,
	TP_PROTO(const struct vmbus_channel *channel, bool to_host, u32 size),
	TP_ARGS(channel, to_host, size),
	TP_STRUCT__entry(
		__field(u32, relid)
		__field(bool, to_host)
		__field(u32, size)
	),
	TP_fast_assign(
		__entry->relid = channel->offermsg.child_relid;
		__entry->to_host = to_host;
		__entry->size = size;
	),
	TP_printk("relid=%u %s size=%u", __entry->relid,
		  __entry->to_host ? "tx" : "rx", __entry->size)
);

/* A writer goes to sleep for room in the ring, or goes on */
DECLARE_EVENT_CLASS(synthrdp_room,
	TP_PROTO(int number, size_t left),
	TP_ARGS(number, left),
	TP_STRUCT__entry(
		__field(int, number)
		__field(size_t, left)
	),
	TP_fast_assign(
		__entry->number = number;
		__entry->left = left;
	),
	TP_printk("synthrdp%d left=%zu", __entry->number, __entry->left)
);

DEFINE_EVENT(synthrdp_room, synthrdp_wait,
	TP_PROTO(int number, size_t left),
	TP_ARGS(number, left));

DEFINE_EVENT(synthrdp_room, synthrdp_wake,
	TP_PROTO(int number, size_t left),
	TP_ARGS(number, left));

#endif /* _SYNTHRDP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
