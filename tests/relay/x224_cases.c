// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads lines "request HEX" or "answer HEX" and prints what x224.c makes of
 * them. Each input arrives byte by byte, each time in an allocation of exactly
 * its size, so that a sanitizer sees a read of one byte too many.
 *
 *	more
 *	refused AFTER WHY		after so many bytes
 *	request SIZE PREFIX NEGOTIATION FLAGS PROTOCOLS CORRELATION REWRITTEN
 *	answer KIND VALUE
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x224.h"

static unsigned char bytes[4096];

static size_t parse_hex(const char *hex)
{
	size_t size = 0;
	unsigned int byte;

	while (size < sizeof(bytes) && sscanf(hex + 2 * size, "%2x", &byte) == 1)
		bytes[size++] = (unsigned char)byte;
	return size;
}

static void print_request(const struct x224_request *request, size_t size)
{
	size_t i;

	printf("request %zu %d %zu %u %u %d ", request->size, request->prefix,
	       request->negotiation, request->flags, request->protocols,
	       request->correlation);
	x224_rewrite_request(bytes, request);
	for (i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
}

static void run(int is_request, size_t size)
{
	struct x224_request request;
	struct x224_answer answer;
	enum x224_state state;
	unsigned char *part;
	size_t have;

	for (have = 0; have <= size; have++) {
		part = malloc(have ? have : 1);
		if (!part)
			abort();
		memcpy(part, bytes, have);
		if (is_request)
			state = x224_parse_request(part, have, &request);
		else
			state = x224_parse_answer(part, have, &answer);
		free(part);
		if (state == X224_REFUSED) {
			printf("refused %zu %s\n", have,
			       is_request ? request.why : answer.why);
			return;
		}
		if (state == X224_WHOLE) {
			if (is_request)
				print_request(&request, size);
			else
				printf("answer %d %u\n", answer.kind,
				       answer.value);
			return;
		}
	}
	puts("more");
}

int main(void)
{
	char line[2 * sizeof(bytes) + 16], hex[2 * sizeof(bytes) + 1];
	char kind[8];

	while (fgets(line, sizeof(line), stdin)) {
		*hex = '\0';
		if (sscanf(line, "%7s %8192s", kind, hex) < 1)
			return 1;
		run(!strcmp(kind, "request"), parse_hex(hex));
	}
	return 0;
}
