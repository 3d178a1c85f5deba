/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One line for each event: to the terminal when somebody sits there, to the
 * journal when it listens, else to syslog and to standard error.
 */
#ifndef SYNTHRDP_LOG_H
#define SYNTHRDP_LOG_H

#define __printf(format, args) __attribute__(( \
	__format__(printf, format, args)))

#define PROGRAM "synthrdp-relay"

void log_open(void);

/* level as for syslog(3): LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO */
__printf(2, 3) void log_line(int level, const char *format, ...);

#endif
