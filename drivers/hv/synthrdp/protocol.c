// SPDX-License-Identifier: GPL-2.0-only
/*
 * SynthRdp wire format: build and check.
 */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "protocol.h"

/**
 * synthrdp_pipe_data_size() - check a pipe packet and say how much it carries
 * @packet: payload of a VMBus in-band packet, in private memory
 * @len: bytes at @packet; VMBus rounds up to 8, so padding is normal
 *
 * Return: bytes of data behind the header, 0 to SYNTHRDP_PIPE_MAX_DATA, or
 * -EPROTO if this is not a data packet or claims more than it holds.
 */
int synthrdp_pipe_data_size(const void *packet, u32 len)
{
	const struct synthrdp_pipe_header *header = packet;
	u32 size;

	if (len < sizeof(*header) ||
	    len > sizeof(*header) + SYNTHRDP_PIPE_MAX_DATA)
		return -EPROTO;

	if (le32_to_cpu(header->type) != SYNTHRDP_PIPE_DATA)
		return -EPROTO;

	size = le32_to_cpu(header->data_size);
	if (size > len - sizeof(*header))
		return -EPROTO;

	return size;
}

/**
 * synthrdp_build_version_request() - build the message that opens negotiation
 * @req: where to build it
 */
void synthrdp_build_version_request(struct synthrdp_version_request *req)
{
	*req = (struct synthrdp_version_request) {
		.header.type = cpu_to_le32(SYNTHRDP_MSG_VERSION_REQUEST),
		.header.size = cpu_to_le32(sizeof(*req)),
		.major = cpu_to_le16(SYNTHRDP_VERSION_MAJOR),
		.minor = cpu_to_le16(SYNTHRDP_VERSION_MINOR),
	};
}

static enum synthrdp_verdict
parse_version_response(const struct synthrdp_version_response *rsp)
{
	if (rsp->is_accepted != SYNTHRDP_ACCEPTED)
		return SYNTHRDP_REJECT;

	if (le16_to_cpu(rsp->major) != SYNTHRDP_VERSION_MAJOR ||
	    le16_to_cpu(rsp->minor) != SYNTHRDP_VERSION_MINOR)
		return SYNTHRDP_BAD_VERSION;

	return SYNTHRDP_ACCEPT;
}

/**
 * synthrdp_parse() - judge a control message from the host
 * @msg: the message, in private memory
 * @len: its length as the pipe header gave it
 *
 * Return: the verdict. For SYNTHRDP_CREATE, @msg may then be used as a
 * struct synthrdp_create_session.
 */
enum synthrdp_verdict synthrdp_parse(const void *msg, u32 len)
{
	const struct synthrdp_header *header = msg;

	if (len < sizeof(*header))
		return SYNTHRDP_BAD_HEADER;

	switch (le32_to_cpu(header->type)) {
	case SYNTHRDP_MSG_ERROR:
		return SYNTHRDP_ERROR;
	case SYNTHRDP_MSG_VERSION_REQUEST:
		return SYNTHRDP_BAD_TYPE;
	case SYNTHRDP_MSG_VERSION_RESPONSE:
		if (len != sizeof(struct synthrdp_version_response))
			return SYNTHRDP_BAD_SIZE;
		return parse_version_response(msg);
	case SYNTHRDP_MSG_CREATE_SESSION:
		if (len != sizeof(struct synthrdp_create_session))
			return SYNTHRDP_BAD_SIZE;
		return SYNTHRDP_CREATE;
	default:
		return SYNTHRDP_UNKNOWN;
	}
}

/**
 * synthrdp_instance_number() - number of a data channel that is known
 * @instance: instance GUID of the data channel's offer
 *
 * The known ones are 99221fa1- to 99221fa5-24ad-11e2-be98-001aa01bbf6e.
 *
 * Return: 0 to SYNTHRDP_KNOWN_INSTANCES - 1, or -ENOENT for any other.
 */
int synthrdp_instance_number(const guid_t *instance)
{
	static const guid_t first =
		GUID_INIT(0x99221fa1, 0x24ad, 0x11e2, 0xbe, 0x98,
			  0x00, 0x1a, 0xa0, 0x1b, 0xbf, 0x6e);
	guid_t base = *instance;
	int number;

	/* Only the lowest byte of the first field, stored first, counts up. */
	number = (int)instance->b[0] - first.b[0];
	base.b[0] = first.b[0];

	if (number < 0 || number >= SYNTHRDP_KNOWN_INSTANCES ||
	    !guid_equal(&base, &first))
		return -ENOENT;

	return number;
}
