// SPDX-License-Identifier: GPL-2.0-only
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

static atomic_int stop;
static sigset_t during_poll;

static void on_stop(int signum)
{
	stop = signum;
}

/* Only there to end signals_poll(): who has children asks for them then. */
static void on_child(int signum)
{
	(void)signum;
}

void signals_hold(void)
{
	static const int stops[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction action = { .sa_handler = on_stop }, old;
	sigset_t held;
	size_t i;

	sigemptyset(&held);
	sigemptyset(&during_poll);
	for (i = 0; i < sizeof(stops) / sizeof(*stops); i++) {
		sigaction(stops[i], NULL, &old);
		if (old.sa_handler == SIG_IGN)
			continue;	/* nohup meant it */
		sigaddset(&held, stops[i]);
		sigaction(stops[i], &action, NULL);
	}
	action.sa_handler = on_child;
	sigaddset(&held, SIGCHLD);
	sigaction(SIGCHLD, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	sigprocmask(SIG_BLOCK, &held, NULL);
}

int signals_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	struct timespec time = {
		.tv_sec = timeout / 1000,
		.tv_nsec = timeout % 1000 * 1000000L,
	};
	nfds_t i;

	if (ppoll(fds, count, timeout < 0 ? NULL : &time, &during_poll) >= 0)
		return 0;
	if (errno != EINTR)
		return -1;
	for (i = 0; i < count; i++)
		fds[i].revents = 0;
	return 0;
}

int signals_stop(void)
{
	return stop;
}
