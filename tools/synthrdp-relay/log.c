// SPDX-License-Identifier: GPL-2.0-only
#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

static enum { TERMINAL, JOURNAL, SYSLOG } sink;

/*
 * systemd names the socket it made standard error. Speaking to that is all
 * the journal needs: no library.
 */
static bool is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == dev &&
	       st.st_ino == ino;
}

void log_open(void)
{
	if (isatty(STDERR_FILENO)) {
		sink = TERMINAL;
	} else if (is_journal()) {
		sink = JOURNAL;
	} else {
		sink = SYSLOG;
		openlog(PROGRAM, LOG_PID | LOG_PERROR, LOG_DAEMON);
	}
}

void log_line(int level, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (sink == SYSLOG)
		syslog(level, "%s", line);
	else if (sink == JOURNAL)
		fprintf(stderr, "<%d>%s\n", level, line);
	else
		fprintf(stderr, PROGRAM ": %s\n", line);
}
