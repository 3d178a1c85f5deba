// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite of the wire format.
 *
 * Expected bytes are written out rather than made from the driver's structs, so
 * that a mistake in those does not agree with itself. Messages lie at the end
 * of their own allocation: with KASAN a read beyond them is a failure.
 */

#include <kunit/test.h>
#include <linux/module.h>

#include "protocol.c"

static const u8 version_request[] = {
	1, 0, 0, 0,	16, 0, 0, 0,	1, 0,	0, 0,	0, 0, 0, 0,
};

static const u8 version_response[] = {
	2, 0, 0, 0,	17, 0, 0, 0,	1, 0,	0, 0,	0, 0, 0, 0,	2,
};

static const u8 create_session[] = {
	3, 0, 0, 0,	24, 0, 0, 0,
	0xa1, 0x1f, 0x22, 0x99, 0xad, 0x24, 0xe2, 0x11,
	0xbe, 0x98, 0x00, 0x1a, 0xa0, 0x1b, 0xbf, 0x6e,
};

static void put_u32(u8 *at, u32 value)
{
	at[0] = value;
	at[1] = value >> 8;
	at[2] = value >> 16;
	at[3] = value >> 24;
}

/* A message of @len bytes: @from, and then bytes that mean nothing. */
static u8 *message(struct kunit *test, const u8 *from, size_t size, size_t len)
{
	u8 *msg = kunit_kmalloc(test, len, GFP_KERNEL);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, msg);
	memset(msg, 0xa5, len);
	memcpy(msg, from, min(size, len));

	return msg;
}

static void request_is_built(struct kunit *test)
{
	u8 room[sizeof(version_request) + 8];

	memset(room, 0xee, sizeof(room));
	synthrdp_build_version_request((void *)room);

	KUNIT_EXPECT_EQ(test, memcmp(room, version_request,
				     sizeof(version_request)), 0);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(room + sizeof(version_request),
					     0xee, 8), NULL);
}

static void answer_that_accepts(struct kunit *test)
{
	u8 *msg = message(test, version_response, sizeof(version_response), 17);

	KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 17), SYNTHRDP_ACCEPT);
}

static void answer_only_2_accepts(struct kunit *test)
{
	u8 *msg = message(test, version_response, sizeof(version_response), 17);
	int is_accepted;

	for (is_accepted = 0; is_accepted < 256; is_accepted++) {
		msg[16] = is_accepted;
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(msg, 17),
				    is_accepted == 2 ? SYNTHRDP_ACCEPT :
						       SYNTHRDP_REJECT,
				    "is_accepted=%d", is_accepted);
	}
}

/* Each byte of the version counts; a refusal is one whatever version it has. */
static void answer_of_another_version(struct kunit *test)
{
	u8 *msg = message(test, version_response, sizeof(version_response), 17);
	int at, bit;

	for (at = 8; at < 12; at++) {
		for (bit = 0; bit < 8; bit++) {
			msg[at] ^= 1 << bit;
			msg[16] = 2;
			KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(msg, 17),
					    SYNTHRDP_BAD_VERSION,
					    "byte %d, bit %d", at, bit);
			msg[16] = 0;
			KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(msg, 17),
					    SYNTHRDP_REJECT,
					    "byte %d, bit %d", at, bit);
			msg[at] ^= 1 << bit;
		}
	}
}

/* The header's size and the reserved field are not relied upon. */
static void fields_that_do_not_matter(struct kunit *test)
{
	static const u32 values[] = { 0, 1, 8, 16, 17, 24, 32, 0x11000000,
				      0x7fffffff, 0x80000000, 0xffffffff };
	u8 *answer = message(test, version_response, sizeof(version_response),
			     17);
	u8 *create = message(test, create_session, sizeof(create_session), 24);
	int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		put_u32(answer + 4, values[i]);
		put_u32(answer + 12, ~values[i]);
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(answer, 17),
				    SYNTHRDP_ACCEPT, "%#x", values[i]);
		put_u32(create + 4, values[i]);
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(create, 24),
				    SYNTHRDP_CREATE, "%#x", values[i]);
	}
}

struct kind {
	const char *name;
	u32 type;
	int size;	/* the only right one, or -1 */
	enum synthrdp_verdict right;
	enum synthrdp_verdict wrong;
};

/* Answers with the right size say no here: 0xa5 is not 2. */
static const struct kind kinds[] = {
	{ "error", 0, -1, SYNTHRDP_ERROR, SYNTHRDP_ERROR },
	{ "request", 1, -1, SYNTHRDP_BAD_TYPE, SYNTHRDP_BAD_TYPE },
	{ "answer", 2, 17, SYNTHRDP_REJECT, SYNTHRDP_BAD_SIZE },
	{ "create", 3, 24, SYNTHRDP_CREATE, SYNTHRDP_BAD_SIZE },
	{ "unknown", 4, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	{ "minus one", 0xffffffff, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	/* The types that are known, had they the other byte order. */
	{ "swapped 1", 0x01000000, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	{ "swapped 2", 0x02000000, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	{ "swapped 3", 0x03000000, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	/* Only the lower bits are those of a type that is known. */
	{ "16 bits of 2", 0x00010002, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
	{ "8 bits of 3", 0x00000103, -1, SYNTHRDP_UNKNOWN, SYNTHRDP_UNKNOWN },
};

static void kind_name(const struct kind *kind, char *name)
{
	strscpy(name, kind->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(kinds, kinds, kind_name);

static void each_type_of_each_size(struct kunit *test)
{
	const struct kind *kind = test->param_value;
	enum synthrdp_verdict expected;
	u8 head[4];
	int len;

	put_u32(head, kind->type);
	for (len = 1; len <= 1024; len++) {
		u8 *msg = message(test, head, sizeof(head), len);

		if (len < 8)
			expected = SYNTHRDP_BAD_HEADER;
		else if (len == kind->size)
			expected = kind->right;
		else
			expected = kind->wrong;
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_parse(msg, len), expected,
				    "%d bytes", len);
	}
	KUNIT_EXPECT_EQ(test, synthrdp_parse(head, 0), SYNTHRDP_BAD_HEADER);
}

/* What follows a sound message in the same packet makes it another size. */
static void messages_run_together(struct kunit *test)
{
	u8 *msg = message(test, version_response, sizeof(version_response),
			  17 + 24);

	memcpy(msg + 17, create_session, 24);
	KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 17 + 24), SYNTHRDP_BAD_SIZE);
	KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 17), SYNTHRDP_ACCEPT);
}

/* Whatever the GUID: the data channel may be one that no one has heard of. */
static void create_with_odd_guids(struct kunit *test)
{
	static const u8 fills[] = { 0x00, 0xff, 0x5a };
	u8 *msg = message(test, create_session, sizeof(create_session), 24);
	const struct synthrdp_create_session *create = (void *)msg;
	int i, bit;

	KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 24), SYNTHRDP_CREATE);
	KUNIT_EXPECT_EQ(test, synthrdp_instance_number(&create->instance), 0);
	for (i = 0; i < ARRAY_SIZE(fills); i++) {
		memset(msg + 8, fills[i], 16);
		KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 24), SYNTHRDP_CREATE);
		for (bit = 0; bit < 128; bit++) {
			msg[8 + bit / 8] ^= 1 << bit % 8;
			KUNIT_EXPECT_EQ(test, synthrdp_parse(msg, 24),
					SYNTHRDP_CREATE);
			KUNIT_EXPECT_EQ(test,
					synthrdp_instance_number(&create->instance),
					-ENOENT);
			msg[8 + bit / 8] ^= 1 << bit % 8;
		}
	}
}

static void instances_that_are_known(struct kunit *test)
{
	guid_t instance;
	int first;

	memcpy(&instance, create_session + 8, sizeof(instance));
	for (first = 0; first < 256; first++) {
		instance.b[0] = first;
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_instance_number(&instance),
				    first >= 0xa1 && first <= 0xa5 ?
				    first - 0xa1 : -ENOENT,
				    "99221f%02x-", first);
	}
}

static void instances_that_are_nearly_known(struct kunit *test)
{
	/* As it is read out, where the first three fields are swapped */
	static const guid_t spelled = { {
		0x99, 0x22, 0x1f, 0xa1, 0x24, 0xad, 0x11, 0xe2,
		0xbe, 0x98, 0x00, 0x1a, 0xa0, 0x1b, 0xbf, 0x6e,
	} };
	guid_t instance;
	int number, at, bit;

	memcpy(&instance, create_session + 8, sizeof(instance));
	for (number = 0; number < 5; number++) {
		instance.b[0] = 0xa1 + number;
		for (at = 1; at < 16; at++) {
			for (bit = 0; bit < 8; bit++) {
				instance.b[at] ^= 1 << bit;
				KUNIT_EXPECT_EQ(test,
						synthrdp_instance_number(&instance),
						-ENOENT);
				instance.b[at] ^= 1 << bit;
			}
		}
	}
	KUNIT_EXPECT_EQ(test, synthrdp_instance_number(&spelled), -ENOENT);
}

static void classes_are_those_of_the_hosts(struct kunit *test)
{
	static const u8 control[] = {
		0x16, 0x57, 0xe6, 0xf8, 0xb3, 0x3c, 0x06, 0x4a,
		0x9a, 0x60, 0x18, 0x89, 0xc5, 0xcc, 0xca, 0xb5,
	};
	static const u8 data[] = {
		0xd3, 0xc0, 0xe9, 0xf9, 0x11, 0xb5, 0x48, 0x4a,
		0x80, 0x46, 0xd3, 0x80, 0x79, 0xa8, 0x83, 0x0c,
	};
	guid_t control_class = SYNTHRDP_CONTROL_CLASS;
	guid_t data_class = SYNTHRDP_DATA_CLASS;

	KUNIT_EXPECT_EQ(test, memcmp(&control_class, control, 16), 0);
	KUNIT_EXPECT_EQ(test, memcmp(&data_class, data, 16), 0);
}

/* 8 to 16392 bytes; the buffer ends where the packet does. */
static void packets_of_each_size(struct kunit *test)
{
	const u32 limit = 8 + 16384;
	u8 *buffer = kunit_kmalloc(test, limit + 16, GFP_KERNEL);
	u32 len, claim, i;
	int expected;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, buffer);
	for (len = 0; len <= limit + 16; len++) {
		u8 *packet = buffer + limit + 16 - len;
		const u32 claims[] = {
			0, 1, len - 9, len - 8, len - 7, len, 16383, 16384,
			16385, 0x7fffffff, 0x80000000, 0xfffffff7, 0xfffffff8,
			0xffffffff,
		};

		for (i = 0; i < ARRAY_SIZE(claims); i++) {
			claim = claims[i];
			if (len >= 8) {
				put_u32(packet, 1);
				put_u32(packet + 4, claim);
			}
			expected = len < 8 || len > limit ||
				   (u64)claim + 8 > len ? -EPROTO : claim;
			/* There are so many: the first failure will do. */
			KUNIT_ASSERT_EQ_MSG(test,
					    synthrdp_pipe_data_size(packet, len),
					    expected, "%u bytes that claim %u",
					    len, claim);
		}
	}
}

static void packets_of_each_type(struct kunit *test)
{
	u8 packet[16] = { };
	u32 type;
	int bit;

	put_u32(packet + 4, 8);
	for (type = 0; type < 256; type++) {
		put_u32(packet, type);
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_pipe_data_size(packet, 16),
				    type == 1 ? 8 : -EPROTO, "type %u", type);
	}
	for (bit = 1; bit < 32; bit++) {
		put_u32(packet, 1 | 1U << bit);
		KUNIT_EXPECT_EQ_MSG(test, synthrdp_pipe_data_size(packet, 16),
				    -EPROTO, "bit %d", bit);
	}
}

static struct kunit_case protocol_cases[] = {
	KUNIT_CASE(request_is_built),
	KUNIT_CASE(answer_that_accepts),
	KUNIT_CASE(answer_only_2_accepts),
	KUNIT_CASE(answer_of_another_version),
	KUNIT_CASE(fields_that_do_not_matter),
	KUNIT_CASE_PARAM(each_type_of_each_size, kinds_gen_params),
	KUNIT_CASE(messages_run_together),
	KUNIT_CASE(create_with_odd_guids),
	KUNIT_CASE(instances_that_are_known),
	KUNIT_CASE(instances_that_are_nearly_known),
	KUNIT_CASE(classes_are_those_of_the_hosts),
	KUNIT_CASE(packets_of_each_size),
	KUNIT_CASE(packets_of_each_type),
	{ }
};

static struct kunit_suite protocol_suite = {
	.name = "synthrdp_protocol",
	.test_cases = protocol_cases,
};

kunit_test_suite(protocol_suite);

MODULE_DESCRIPTION("KUnit suite of hv_synthrdp's wire format");
MODULE_LICENSE("GPL");
