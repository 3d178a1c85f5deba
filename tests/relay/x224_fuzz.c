// SPDX-License-Identifier: GPL-2.0-only
/*
 * For libFuzzer: what must hold for any bytes from the client or the server.
 */
#include <stdlib.h>
#include <string.h>

#include "x224.h"

#define MUST(condition) ((condition) ? (void)0 : abort())

/* What is refused or whole early on stays so, whatever follows. */
static void check_answer(const unsigned char *data, size_t size)
{
	struct x224_answer answer, longer;
	enum x224_state state = x224_parse_answer(data, size, &answer);

	MUST(state != X224_MORE || size < X224_MAX_ANSWER);
	MUST((state == X224_REFUSED) == !!answer.why);
	if (size && x224_parse_answer(data, size - 1, &longer) != X224_MORE) {
		MUST(longer.kind == answer.kind);
		MUST(longer.value == answer.value);
		MUST(longer.why == answer.why);
	}
}

static void check_request(const unsigned char *data, size_t size)
{
	struct x224_request request, again;
	enum x224_state state = x224_parse_request(data, size, &request);
	unsigned char *copy;
	size_t i;

	MUST(state != X224_MORE || size < X224_MAX_REQUEST);
	MUST((state == X224_REFUSED) == !!request.why);
	if (size && x224_parse_request(data, size - 1, &again) == X224_REFUSED)
		MUST(state == X224_REFUSED);
	if (state != X224_WHOLE)
		return;

	MUST(request.size <= size && request.size <= X224_MAX_REQUEST);
	copy = malloc(size);
	MUST(copy);
	memcpy(copy, data, size);
	x224_rewrite_request(copy, &request);
	for (i = 0; i < size; i++)
		if (!request.negotiation || i < request.negotiation ||
		    i >= request.negotiation + 8)
			MUST(copy[i] == data[i]);
	MUST(x224_parse_request(copy, size, &again) == X224_WHOLE);
	MUST(again.size == request.size);
	MUST(again.negotiation == request.negotiation);
	MUST(again.correlation == request.correlation);
	MUST(!again.protocols && !(again.flags & ~8));
	free(copy);
}

/* libFuzzer's name for it is not in kernel style. */
int fuzz(const unsigned char *data, size_t size) __asm__("LLVMFuzzerTestOneInput");

int fuzz(const unsigned char *data, size_t size)
{
	check_request(data, size);
	check_answer(data, size);
	return 0;
}
