/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a server's answer means on a channel where nobody does TLS, in words
 * for the administrator: the cause and, for each known server, the cure.
 */
#ifndef SYNTHRDP_ANSWER_H
#define SYNTHRDP_ANSWER_H

#include "x224.h"

/* NULL: the server speaks RDP's own security, and all is well. */
const char *answer_trouble(const struct x224_answer *answer);
const char *answer_cure(const struct x224_answer *answer, bool rewritten);

#endif
