/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SynthRdp wire format: VMBus pipe framing and control messages.
 *
 * Pure: no VMBus, no I/O, no allocation. Everything is little-endian and
 * everything that is parsed here was written by the host, so the caller hands
 * in a private copy that cannot change while it is looked at.
 */
#ifndef _SYNTHRDP_PROTOCOL_H
#define _SYNTHRDP_PROTOCOL_H

#include <linux/build_bug.h>
#include <linux/types.h>
#include <linux/uuid.h>

/* Device class of the control channel: f8e65716-3cb3-4a06-9a60-1889c5cccab5 */
#define SYNTHRDP_CONTROL_CLASS						\
	GUID_INIT(0xf8e65716, 0x3cb3, 0x4a06, 0x9a, 0x60,		\
		  0x18, 0x89, 0xc5, 0xcc, 0xca, 0xb5)

/* Device class of the data channels: f9e9c0d3-b511-4a48-8046-d38079a8830c */
#define SYNTHRDP_DATA_CLASS						\
	GUID_INIT(0xf9e9c0d3, 0xb511, 0x4a48, 0x80, 0x46,		\
		  0xd3, 0x80, 0x79, 0xa8, 0x83, 0x0c)

/* How many data channels have an instance GUID that is known in advance */
#define SYNTHRDP_KNOWN_INSTANCES	5

/* The only protocol version that is known */
#define SYNTHRDP_VERSION_MAJOR		1
#define SYNTHRDP_VERSION_MINOR		0

/*
 * Pipe packets: the only type that carries data, and the most it may carry. That
 * is the limit of all pipes: MAX_PIPE_DATA_PAYLOAD in <linux/hyperv.h>, which
 * this file does without.
 */
#define SYNTHRDP_PIPE_DATA		1
#define SYNTHRDP_PIPE_MAX_DATA		16384

/**
 * struct synthrdp_pipe_header - what precedes the data in each VMBus packet
 * @type: SYNTHRDP_PIPE_DATA
 * @data_size: bytes of data that follow; what the packet holds beyond them is
 *	padding
 */
struct synthrdp_pipe_header {
	__le32 type;
	__le32 data_size;
} __packed;

/**
 * enum synthrdp_message_type - control messages
 * @SYNTHRDP_MSG_ERROR: host to guest, layout unknown
 * @SYNTHRDP_MSG_VERSION_REQUEST: guest to host, opens the conversation
 * @SYNTHRDP_MSG_VERSION_RESPONSE: host to guest, the answer
 * @SYNTHRDP_MSG_CREATE_SESSION: host to guest, a data channel is on its way
 */
enum synthrdp_message_type {
	SYNTHRDP_MSG_ERROR		= 0,
	SYNTHRDP_MSG_VERSION_REQUEST	= 1,
	SYNTHRDP_MSG_VERSION_RESPONSE	= 2,
	SYNTHRDP_MSG_CREATE_SESSION	= 3,
};

/**
 * struct synthrdp_header - head of every control message
 * @type: enum synthrdp_message_type
 * @size: size of the message with this header. What hosts write here is not
 *	known for every message, so it is sent but never relied on: the pipe
 *	says how long a message is.
 */
struct synthrdp_header {
	__le32 type;
	__le32 size;
} __packed;

/**
 * struct synthrdp_version_request - asks the host for a protocol version
 * @header: type SYNTHRDP_MSG_VERSION_REQUEST
 * @major: SYNTHRDP_VERSION_MAJOR
 * @minor: SYNTHRDP_VERSION_MINOR
 * @reserved: 0
 */
struct synthrdp_version_request {
	struct synthrdp_header header;
	__le16 major;
	__le16 minor;
	__le32 reserved;
} __packed;
static_assert(sizeof(struct synthrdp_version_request) == 16);

/* The one value of is_accepted that means yes: true, with version exchange */
#define SYNTHRDP_ACCEPTED		2

/**
 * struct synthrdp_version_response - the host's answer
 * @header: type SYNTHRDP_MSG_VERSION_RESPONSE
 * @major: as requested
 * @minor: as requested
 * @reserved: ignored
 * @is_accepted: SYNTHRDP_ACCEPTED, anything else is a refusal
 */
struct synthrdp_version_response {
	struct synthrdp_header header;
	__le16 major;
	__le16 minor;
	__le32 reserved;
	u8 is_accepted;
} __packed;
static_assert(sizeof(struct synthrdp_version_response) == 17);

/**
 * struct synthrdp_create_session - a session is about to start
 * @header: type SYNTHRDP_MSG_CREATE_SESSION
 * @instance: instance GUID of the data channel that is, or will be, offered
 */
struct synthrdp_create_session {
	struct synthrdp_header header;
	guid_t instance;
} __packed;
static_assert(sizeof(struct synthrdp_create_session) == 24);

/**
 * enum synthrdp_verdict - what a control message turned out to be
 * @SYNTHRDP_ACCEPT: version response, the host agrees
 * @SYNTHRDP_REJECT: version response, the host refuses
 * @SYNTHRDP_CREATE: sound CreateSession
 * @SYNTHRDP_UNKNOWN: sound header, type not known: may be ignored
 * @SYNTHRDP_BAD_HEADER: shorter than a header
 * @SYNTHRDP_BAD_SIZE: known type, but not that type's size
 * @SYNTHRDP_BAD_TYPE: a message that only a guest sends
 * @SYNTHRDP_BAD_VERSION: the host agrees to a version that was not asked for
 * @SYNTHRDP_ERROR: the host reports an error
 */
enum synthrdp_verdict {
	SYNTHRDP_ACCEPT,
	SYNTHRDP_REJECT,
	SYNTHRDP_CREATE,
	SYNTHRDP_UNKNOWN,
	SYNTHRDP_BAD_HEADER,
	SYNTHRDP_BAD_SIZE,
	SYNTHRDP_BAD_TYPE,
	SYNTHRDP_BAD_VERSION,
	SYNTHRDP_ERROR,
};

int synthrdp_pipe_data_size(const void *packet, u32 len);
void synthrdp_build_version_request(struct synthrdp_version_request *req);
enum synthrdp_verdict synthrdp_parse(const void *msg, u32 len);
int synthrdp_instance_number(const guid_t *instance);

#endif /* _SYNTHRDP_PROTOCOL_H */
