// SPDX-License-Identifier: GPL-2.0-only
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "log.h"
#include "server.h"
#include "signals.h"
#include "tap.h"
#include "x224.h"

/* Hyper-V is reported to open channels on which no client ever speaks. */
#define REQUEST_MS	10000
/* From the request to a server that accepts the connection. */
#define SERVER_MS	30000
#define RETRY_FIRST_MS	100
#define RETRY_MOST_MS	1000
/* A server that takes longer to answer is remarked on, not more. */
#define ANSWER_MS	10000
/* Once one side has ended: without any progress, the rest is given up. */
#define DRAIN_MS	5000

#define NEVER		LLONG_MAX
#define FLOW_SIZE	65536

/* Bytes under way in one direction. */
struct flow {
	unsigned long long total;		/* delivered */
	size_t start, end;	/* what data holds */
	bool ended;		/* nothing more is read */
	bool dead;		/* nothing more is taken: drop what comes */
	unsigned char data[FLOW_SIZE];
};

enum phase {
	REQUEST,		/* until the client's request is whole */
	CONNECTING,
	PAUSING,		/* between two attempts to connect */
	TALKING,
	OVER,
};

struct relay {
	const char *name;
	const struct server *server;
	bool rewrite;

	enum phase phase;
	long long deadline;	/* of the phase, or of the end */
	long long give_up;	/* on reaching the server */
	int retry_ms;

	int device;
	struct server_attempt attempt;
	struct flow up, down;	/* to the server, to the device */
	struct tap tap;
	bool device_hup, server_hup;

	unsigned char answer[X224_MAX_ANSWER];
	size_t answer_size;
	bool answered;		/* and looked at */

	bool stopping;		/* a signal asks to, once nothing more is here */
	bool leaving;		/* one side has ended */
	bool shut;		/* the server knows */
	enum relay_exit code;
	char why[256];
};

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static size_t flow_size(const struct flow *flow)
{
	return flow->end - flow->start;
}

static bool flow_wants(const struct flow *flow)
{
	return !flow->ended && (flow->dead || flow->end < FLOW_SIZE);
}

static bool flow_offers(const struct flow *flow)
{
	return !flow->dead && flow_size(flow);
}

static bool flow_done(const struct flow *flow)
{
	return flow->ended && !flow_offers(flow);
}

static void flow_kill(struct flow *flow)
{
	flow->dead = true;
	flow->start = 0;
	flow->end = 0;
}

/* Returns an errno that ended the flow, or 0; see flow->ended then. */
static int flow_fill(struct flow *flow, int fd)
{
	ssize_t size = read(fd, flow->data + flow->end, FLOW_SIZE - flow->end);

	if (size < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return 0;
		flow->ended = true;
		return errno;
	}
	if (!size)
		flow->ended = true;
	else if (!flow->dead)
		flow->end += (size_t)size;
	return 0;
}

/* Returns an errno that killed the flow, or 0. */
static int flow_drain(struct flow *flow, int fd)
{
	ssize_t size = write(fd, flow->data + flow->start, flow_size(flow));

	if (size < 0) {
		int error = errno;

		if (error == EAGAIN || error == EINTR)
			return 0;
		flow_kill(flow);
		return error;
	}
	flow->total += (unsigned long long)size;
	flow->start += (size_t)size;
	/*
	 * Make room in steps of half the buffer, so that a slow receiver does
	 * not have everything moved for each byte it takes.
	 */
	if (flow->start == flow->end || flow->start >= FLOW_SIZE / 2) {
		memmove(flow->data, flow->data + flow->start, flow_size(flow));
		flow->end -= flow->start;
		flow->start = 0;
	}
	return 0;
}

static void leave(struct relay *relay)
{
	if (relay->leaving)
		return;
	relay->leaving = true;
	relay->deadline = now_ms() + DRAIN_MS;
}

/* The first cause counts: the others follow from it. */
static __printf(3, 4)
void end(struct relay *relay, enum relay_exit code, const char *format, ...)
{
	va_list args;

	leave(relay);
	if (*relay->why)
		return;
	relay->code = code;
	va_start(args, format);
	vsnprintf(relay->why, sizeof(relay->why), format, args);
	va_end(args);
}

static bool is_over(const struct relay *relay)
{
	if (relay->phase == TALKING)
		return flow_done(&relay->up) && flow_done(&relay->down);
	return relay->leaving;
}

static void on_attempt(struct relay *relay, enum server_state state)
{
	int error = relay->attempt.error;
	long long now = now_ms();

	if (state == SERVER_CONNECTED) {
		relay->phase = TALKING;
		relay->deadline = now + ANSWER_MS;
		log_line(LOG_INFO, "%s: connected to %s", relay->name,
			 relay->server->name);
		return;
	}
	if (state == SERVER_CONNECTING) {
		relay->phase = CONNECTING;
		relay->deadline = relay->give_up;
		return;
	}
	if (!server_may_come(error) || now >= relay->give_up) {
		end(relay, RELAY_NO_SERVER, "cannot connect: %s: %s",
		    strerror(error), server_advice(error));
		return;
	}
	if (relay->retry_ms == RETRY_FIRST_MS)
		log_line(LOG_NOTICE, "%s: waiting up to %d s for %s: %s",
			 relay->name, SERVER_MS / 1000, relay->server->name,
			 strerror(error));
	relay->phase = PAUSING;
	relay->deadline = now + relay->retry_ms;
	if (relay->deadline > relay->give_up)
		relay->deadline = relay->give_up;
	relay->retry_ms *= 2;
	if (relay->retry_ms > RETRY_MOST_MS)
		relay->retry_ms = RETRY_MOST_MS;
}

static void on_request(struct relay *relay, const struct x224_request *request)
{
	static const char * const prefix[] = {
		[X224_NO_PREFIX] = "",
		[X224_COOKIE] = ", with a cookie",
		[X224_ROUTING_TOKEN] = ", with a routing token",
	};

	if (!request->negotiation)
		log_line(LOG_INFO, "%s: request without negotiation%s",
			 relay->name, prefix[request->prefix]);
	else
		log_line(LOG_INFO,
			 "%s: request for protocols 0x%08x, flags 0x%02x%s%s",
			 relay->name, request->protocols, request->flags,
			 prefix[request->prefix],
			 relay->rewrite ? "; the server is asked for 0" : "");
	if (relay->rewrite)
		x224_rewrite_request(relay->up.data, request);
	relay->give_up = now_ms() + SERVER_MS;
	relay->retry_ms = RETRY_FIRST_MS;
	on_attempt(relay, server_start(&relay->attempt, relay->server));
}

static void refuse_request(struct relay *relay, const char *why)
{
	/* Not more: a cookie behind them names the user. */
	char hex[3 * 6 + 1] = "";
	size_t i;

	for (i = 0; i < flow_size(&relay->up) && i < 6; i++)
		snprintf(hex + 3 * i, 4, " %02x", relay->up.data[i]);
	end(relay, RELAY_NOT_RDP,
	    "refused: this is not an X.224 connection request but %s:%s",
	    why, hex);
}

static void on_device_end(struct relay *relay, int error)
{
	const char *when = "";
	enum relay_exit code = RELAY_OK;

	if (relay->phase == REQUEST) {
		when = " before a request";
		code = RELAY_NO_REQUEST;
	} else if (relay->phase != TALKING) {
		when = " before the server could be reached";
		code = RELAY_NO_SERVER;
	}
	if (error == EPROTO)
		end(relay, RELAY_BROKEN, "the host sent malformed packets%s",
		    when);
	else if (error)
		end(relay, RELAY_BROKEN, "the device failed%s: %s", when,
		    strerror(error));
	else
		end(relay, code, "the client left%s", when);
	relay->device_hup = true;
	flow_kill(&relay->down);
}

static void on_stop(struct relay *relay)
{
	end(relay, RELAY_OK, "stopped by signal %d", signals_stop());
	relay->up.ended = true;
}

static void on_server_end(struct relay *relay, int error)
{
	const char *how = error ? strerror(error) : "end of connection";

	if (relay->answer_size)
		end(relay, RELAY_OK, "the server closed the connection (%s)",
		    how);
	else
		end(relay, RELAY_ANSWER,
		    "the server closed the connection without an answer (%s): see its log",
		    how);
	relay->server_hup = true;
	/* RDP knows no half-closed connections: there is no reader any more. */
	relay->up.ended = true;
	if (error)
		flow_kill(&relay->up);
}

static void on_answer(struct relay *relay)
{
	struct x224_answer answer;
	const char *trouble;

	switch (x224_parse_answer(relay->answer, relay->answer_size, &answer)) {
	case X224_MORE:
		return;
	case X224_REFUSED:
		relay->answered = true;
		log_line(LOG_WARNING,
			 "%s: the server answers with %s: is %s an RDP server?",
			 relay->name, answer.why, relay->server->name);
		return;
	case X224_WHOLE:
		break;
	}
	relay->answered = true;
	trouble = answer_trouble(&answer);
	if (!trouble) {
		log_line(LOG_INFO, "%s: the server accepts", relay->name);
		return;
	}
	log_line(relay->rewrite ? LOG_ERR : LOG_WARNING, "%s: %s: %s",
		 relay->name, trouble, answer_cure(&answer, relay->rewrite));
	if (!relay->rewrite)
		return;
	/* Better an end than a server that waits for a TLS hello for ever. */
	end(relay, RELAY_ANSWER, "%s", trouble);
	relay->up.ended = true;
	flow_kill(&relay->up);
	relay->down.ended = true;
}

static void fill_from_device(struct relay *relay)
{
	size_t old = relay->up.end;
	int error = flow_fill(&relay->up, relay->device);

	tap_data(&relay->tap, TAP_UP, relay->up.data + old,
		 relay->up.end - old);
	if (relay->up.ended)
		on_device_end(relay, error);
}

static void fill_from_server(struct relay *relay)
{
	size_t old = relay->down.end, size;
	int error = flow_fill(&relay->down, relay->attempt.fd);

	size = relay->down.end - old;
	tap_data(&relay->tap, TAP_DOWN, relay->down.data + old, size);
	if (!relay->answered && size) {
		if (size > X224_MAX_ANSWER - relay->answer_size)
			size = X224_MAX_ANSWER - relay->answer_size;
		if (!relay->leaving)
			relay->deadline = NEVER;
		memcpy(relay->answer + relay->answer_size,
		       relay->down.data + old, size);
		relay->answer_size += size;
		on_answer(relay);
	} else if (relay->down.ended) {
		on_server_end(relay, error);
	}
}

static void drain(struct relay *relay)
{
	unsigned long long up = relay->up.total, down = relay->down.total;
	bool progress;

	/*
	 * An error here means that the other end has gone. What it had sent
	 * can still be read, and then tells the cause.
	 */
	if (flow_offers(&relay->down) &&
	    flow_drain(&relay->down, relay->device))
		leave(relay);
	if (flow_offers(&relay->up) &&
	    flow_drain(&relay->up, relay->attempt.fd)) {
		relay->up.ended = true;
		leave(relay);
	}
	if (!relay->leaving || relay->shut)
		return;
	/* Only where there is an end to what can be delivered. */
	progress = ((relay->up.ended || relay->device_hup) &&
		    relay->up.total > up) ||
		   ((relay->down.ended || relay->server_hup) &&
		    relay->down.total > down);
	if (progress)
		relay->deadline = now_ms() + DRAIN_MS;
	/*
	 * Nothing more will come from the client. Closing at once could drop
	 * what the server has not read yet, so it gets time to close first.
	 */
	if (flow_done(&relay->up) && !relay->up.dead) {
		shutdown(relay->attempt.fd, SHUT_WR);
		relay->shut = true;
		relay->deadline = now_ms() + DRAIN_MS;
	}
}

static void receive_request(struct relay *relay)
{
	struct x224_request request;

	fill_from_device(relay);
	if (!flow_size(&relay->up))
		return;
	switch (x224_parse_request(relay->up.data, relay->up.end, &request)) {
	case X224_MORE:
		break;
	case X224_REFUSED:
		refuse_request(relay, request.why);
		break;
	case X224_WHOLE:
		on_request(relay, &request);
		break;
	}
}

static void on_deadline(struct relay *relay)
{
	if (relay->leaving) {
		if (relay->stopping)
			on_stop(relay);
		end(relay, RELAY_BROKEN, "one side hung");
		relay->phase = OVER;
		return;
	}
	switch (relay->phase) {
	case REQUEST:
		end(relay, RELAY_NO_REQUEST, "no request came in %d s",
		    REQUEST_MS / 1000);
		break;
	case CONNECTING:
		end(relay, RELAY_NO_SERVER, "cannot connect: %s: %s",
		    strerror(ETIMEDOUT), server_advice(ETIMEDOUT));
		break;
	case PAUSING:
		on_attempt(relay, server_start(&relay->attempt, relay->server));
		break;
	case TALKING:
		log_line(LOG_WARNING,
			 "%s: no answer from %s for %d s: is it stuck, or does it wait for TLS?",
			 relay->name, relay->server->name, ANSWER_MS / 1000);
		relay->deadline = NEVER;
		break;
	case OVER:
		break;
	}
}

/* A descriptor that would only repeat that the other end is gone is left out. */
static void watch(struct pollfd *pollfd, int fd, bool in, bool out, bool hup)
{
	pollfd->events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0));
	pollfd->fd = hup && !pollfd->events ? -1 : fd;
	pollfd->revents = 0;
}

static void step(struct relay *relay)
{
	const short readable = POLLIN | POLLHUP | POLLERR;
	struct pollfd fds[2], *device = fds, *server = fds + 1;
	bool talking = relay->phase == TALKING;
	long long left = -1;

	watch(device, relay->device, flow_wants(&relay->up),
	      talking && flow_offers(&relay->down), relay->device_hup);
	watch(server, relay->attempt.fd, talking && flow_wants(&relay->down),
	      relay->phase == CONNECTING ||
	      (talking && flow_offers(&relay->up)), relay->server_hup);

	if (relay->deadline != NEVER) {
		left = relay->deadline - now_ms();
		if (left < 0)
			left = 0;
	}
	/*
	 * When a client leaves, systemd stops the relay as well. What arrived
	 * before the signal still counts.
	 */
	if (relay->stopping && device->events & POLLIN)
		left = 0;
	if (signals_poll(fds, 2, (int)left)) {
		end(relay, RELAY_TROUBLE, "poll: %s", strerror(errno));
		relay->phase = OVER;
		return;
	}

	if (signals_stop() && !relay->stopping) {
		relay->stopping = true;
		leave(relay);
		if (!talking)
			on_stop(relay);
	} else if (relay->stopping && device->events & POLLIN &&
		   !device->revents) {
		on_stop(relay);
	}
	if (relay->phase == CONNECTING && server->revents)
		on_attempt(relay, server_continue(&relay->attempt));
	else if (talking && server->revents & readable && flow_wants(&relay->down))
		fill_from_server(relay);

	if (device->revents & readable && flow_wants(&relay->up)) {
		if (relay->phase == REQUEST)
			receive_request(relay);
		else
			fill_from_device(relay);
	}
	if (device->revents & (POLLHUP | POLLERR)) {
		relay->device_hup = true;
		/* Else its end may be out of reach, for want of room. */
		if (relay->phase == TALKING)
			leave(relay);
		else if (!flow_wants(&relay->up))
			on_device_end(relay, 0);
	}
	if (relay->phase == TALKING && server->revents & (POLLHUP | POLLERR)) {
		relay->server_hup = true;
		leave(relay);
	}
	if (relay->phase == TALKING)
		drain(relay);
	if (relay->deadline != NEVER && now_ms() >= relay->deadline)
		on_deadline(relay);
}

static const char *device_advice(int error)
{
	switch (error) {
	case ENOENT:
		return "no client is connecting now (--watch waits), or hv_synthrdp is not loaded";
	case EACCES:
	case EPERM:
		return "run this as a member of the group synthrdp, or as root";
	case EBUSY:
		return "another process serves it already";
	case ENODEV:
	case ENXIO:
		return "the client has left again";
	default:
		return "is it a device of hv_synthrdp?";
	}
}

static void log_end(const struct relay *relay, long long start)
{
	size_t lost = flow_size(&relay->up) + flow_size(&relay->down);
	long long ms = now_ms() - start;
	char undelivered[64] = "";

	if (lost && relay->answer_size)
		snprintf(undelivered, sizeof(undelivered),
			 ", %zu bytes not delivered", lost);
	log_line(relay->code == RELAY_OK || relay->code == RELAY_NO_REQUEST ?
		 LOG_NOTICE : LOG_ERR,
		 "%s: ended after %lld.%lld s, %llu bytes to %s, %llu from it%s: %s",
		 relay->name, ms / 1000, ms % 1000 / 100, relay->up.total,
		 relay->server->name, relay->down.total, undelivered,
		 relay->why);
}

enum relay_exit relay_serve(const char *device, const struct server *server,
			    bool rewrite)
{
	long long start = now_ms();
	enum relay_exit code;
	struct relay *relay;

	relay = calloc(1, sizeof(*relay));
	if (!relay) {
		log_line(LOG_ERR, "%s: %s", device, strerror(errno));
		return RELAY_TROUBLE;
	}
	relay->device = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (relay->device < 0) {
		int error = errno;

		log_line(LOG_ERR, "%s: %s: %s", device, strerror(error),
			 device_advice(error));
		free(relay);
		return RELAY_DEVICE;
	}
	signals_hold();
	log_line(LOG_INFO, "%s: opened", device);
	relay->name = device;
	relay->server = server;
	relay->rewrite = rewrite;
	relay->attempt.fd = -1;
	relay->deadline = start + REQUEST_MS;
	tap_open(&relay->tap, device, server->name);
	while (!is_over(relay))
		step(relay);

	log_end(relay, start);
	tap_close(&relay->tap);
	code = relay->code;
	if (relay->attempt.fd >= 0)
		close(relay->attempt.fd);
	/* The driver now gives the host time to read what was written. */
	close(relay->device);
	free(relay);
	return code;
}
