/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: every message, change of state, packet and wait.
 *
 * number is N of /dev/synthrdpN, or -1 for the control device. Where a text
 * says more than a number it is an array, larger than any such text: tools and
 * filters take it, and __assign_str() is not the same in all kernels.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM synthrdp

#if !defined(_SYNTHRDP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _SYNTHRDP_TRACE_H

#include <linux/hyperv.h>
#include <linux/tracepoint.h>

#include "pipe.h"
#include "protocol.h"

/* Programs that print events cannot know the values of our enums. */
TRACE_DEFINE_ENUM(SYNTHRDP_MSG_ERROR);
TRACE_DEFINE_ENUM(SYNTHRDP_MSG_VERSION_REQUEST);
TRACE_DEFINE_ENUM(SYNTHRDP_MSG_VERSION_RESPONSE);
TRACE_DEFINE_ENUM(SYNTHRDP_MSG_CREATE_SESSION);
TRACE_DEFINE_ENUM(SYNTHRDP_ACCEPT);
TRACE_DEFINE_ENUM(SYNTHRDP_REJECT);
TRACE_DEFINE_ENUM(SYNTHRDP_CREATE);
TRACE_DEFINE_ENUM(SYNTHRDP_UNKNOWN);
TRACE_DEFINE_ENUM(SYNTHRDP_BAD_HEADER);
TRACE_DEFINE_ENUM(SYNTHRDP_BAD_SIZE);
TRACE_DEFINE_ENUM(SYNTHRDP_BAD_TYPE);
TRACE_DEFINE_ENUM(SYNTHRDP_BAD_VERSION);
TRACE_DEFINE_ENUM(SYNTHRDP_ERROR);

#define synthrdp_show_type(type)					\
	__print_symbolic(type,						\
		{ SYNTHRDP_MSG_ERROR,		 "error" },		\
		{ SYNTHRDP_MSG_VERSION_REQUEST,	 "version-request" },	\
		{ SYNTHRDP_MSG_VERSION_RESPONSE, "version-response" },	\
		{ SYNTHRDP_MSG_CREATE_SESSION,	 "create-session" })

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

/* A control message to the host */
TRACE_EVENT(synthrdp_request,
	TP_PROTO(const void *msg, u32 size),
	TP_ARGS(msg, size),
	TP_STRUCT__entry(
		__field(u32, type)
		__field(u32, size)
	),
	TP_fast_assign(
		const struct synthrdp_header *header = msg;

		__entry->type = le32_to_cpu(header->type);
		__entry->size = size;
	),
	TP_printk("type=%s size=%u", synthrdp_show_type(__entry->type),
		  __entry->size)
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
	TP_printk("type=%s size=%u verdict=%s",
		  synthrdp_show_type(__entry->type), __entry->size,
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
		strscpy_pad(__entry->from, from, sizeof(__entry->from));
		strscpy_pad(__entry->to, to, sizeof(__entry->to));
		strscpy_pad(__entry->reason, reason, sizeof(__entry->reason));
	),
	TP_printk("%s -> %s: %s", __entry->from, __entry->to, __entry->reason)
);

DECLARE_EVENT_CLASS(synthrdp_result,
	TP_PROTO(int number, int error),
	TP_ARGS(number, error),
	TP_STRUCT__entry(
		__field(int, number)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->number = number;
		__entry->error = error;
	),
	TP_printk("number=%d error=%d", __entry->number, __entry->error)
);

/* The host has opened a node's channel, or has not */
DEFINE_EVENT(synthrdp_result, synthrdp_session_open,
	TP_PROTO(int number, int error),
	TP_ARGS(number, error)
);

/* The conversation with the host is over; so much of it is still to be read */
TRACE_EVENT(synthrdp_session_hang_up,
	TP_PROTO(int number, const char *reason, u32 unread),
	TP_ARGS(number, reason, unread),
	TP_STRUCT__entry(
		__field(int, number)
		__array(char, reason, 16)
		__field(u32, unread)
	),
	TP_fast_assign(
		__entry->number = number;
		strscpy_pad(__entry->reason, reason, sizeof(__entry->reason));
		__entry->unread = unread;
	),
	TP_printk("number=%d reason=%s unread=%u", __entry->number,
		  __entry->reason, __entry->unread)
);

/* The last user of a node is done with it */
TRACE_EVENT(synthrdp_session_close,
	TP_PROTO(int number),
	TP_ARGS(number),
	TP_STRUCT__entry(
		__field(int, number)
	),
	TP_fast_assign(
		__entry->number = number;
	),
	TP_printk("number=%d", __entry->number)
);

/* A pipe packet passes; size is that of its data */
TRACE_EVENT(synthrdp_packet,
	TP_PROTO(const struct synthrdp_pipe *pipe, bool to_host, u32 size),
	TP_ARGS(pipe, to_host, size),
	TP_STRUCT__entry(
		__field(int, number)
		__field(u32, relid)
		__field(u32, size)
		__field(bool, to_host)
	),
	TP_fast_assign(
		__entry->number = pipe->counters->number;
		__entry->relid = pipe->channel->offermsg.child_relid;
		__entry->size = size;
		__entry->to_host = to_host;
	),
	TP_printk("number=%d relid=%u %s size=%u", __entry->number,
		  __entry->relid, __entry->to_host ? "tx" : "rx", __entry->size)
);

/* A writer goes to sleep for room in the ring, with so much left to write */
TRACE_EVENT(synthrdp_tx_wait,
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
	TP_printk("number=%d left=%zu", __entry->number, __entry->left)
);

/* It goes on, or has got a signal (-ERESTARTSYS) */
DEFINE_EVENT(synthrdp_result, synthrdp_tx_wake,
	TP_PROTO(int number, int error),
	TP_ARGS(number, error)
);

#endif /* _SYNTHRDP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
