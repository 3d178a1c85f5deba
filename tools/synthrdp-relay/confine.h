/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a relay gives up once it knows that its server is on a unix socket.
 */
#ifndef SYNTHRDP_CONFINE_H
#define SYNTHRDP_CONFINE_H

#include <stdbool.h>

/*
 * From here on this process and its children can make no socket but unix
 * ones. The service's unit cannot see to that: it does not know where the
 * server is. False, with errno, where the kernel has no such filters.
 */
bool confine_to_unix_sockets(void);

#endif
