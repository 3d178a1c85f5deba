// SPDX-License-Identifier: GPL-2.0-only
/*
 * hv_synthrdp from outside: the switch in sysfs, and the node of a session.
 *
 * Has to run as root in a guest of Hyper-V with the driver loaded. The tests of
 * the node want a session whose node nobody has open: stop the relay, and let
 * VMConnect ask for an Enhanced Session. They spoil that session: what the
 * client sends is thrown away, and it is sent what is not RDP.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "../../kselftest_harness.h"

#define CONTROL	"/sys/bus/vmbus/devices/99221fa0-24ad-11e2-be98-001aa01bbf6e/synthrdp/"
#define CLASS	"/sys/class/synthrdp/"
#define DRIVER	"/sys/bus/vmbus/drivers/hv_synthrdp/"

/* How long a host may take to answer: the driver's own limit, and some more */
#define ANSWER_MS	15000

/* The session's node: opened once, for a real host ends a session that closes */
static char node_name[32];
static int node_fd = -1;
static int node_error;

static int open_file(const char *folder, const char *name, int flags)
{
	char path[256];

	snprintf(path, sizeof(path), "%s%s", folder, name);

	return open(path, flags);
}

static bool read_text(const char *folder, const char *name, char *text,
		      size_t size)
{
	int fd = open_file(folder, name, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return false;
	len = read(fd, text, size - 1);
	close(fd);
	if (len <= 0 || text[len - 1] != '\n')
		return false;
	text[len - 1] = '\0';

	return true;
}

/* Returns 0 or an errno. */
static int write_text(const char *folder, const char *name, const char *text)
{
	int fd = open_file(folder, name, O_WRONLY);
	ssize_t len;
	int error;

	if (fd < 0)
		return errno;
	len = write(fd, text, strlen(text));
	error = len < 0 ? errno : 0;
	close(fd);

	return error;
}

/* Returns the counter's value, or -1. */
static long long counter(const char *folder, const char *name)
{
	char text[32];
	char *end;
	long long value;

	if (!read_text(folder, name, text, sizeof(text)))
		return -1;
	value = strtoll(text, &end, 10);

	return *end ? -1 : value;
}

/* Returns the first name that is no counter, or an empty string. */
static const char *not_counted(const char *folder, const char * const *names)
{
	for (; *names; names++)
		if (counter(folder, *names) < 0)
			return *names;

	return "";
}

/*
 * Waits until uevents of the control device tell of the outcome of a
 * negotiation. Returns the state, or an empty string when none comes in time.
 */
static const char *wait_outcome(int fd)
{
	static const char * const outcomes[] = { "ready", "rejected", "failed" };
	struct pollfd in = { .fd = fd, .events = POLLIN };
	const char *name = "SYNTHRDP_STATE=";
	char event[4096];
	unsigned int i;
	ssize_t len;
	char *field;

	while (poll(&in, 1, ANSWER_MS) == 1) {
		len = recv(fd, event, sizeof(event) - 1, 0);
		if (len <= 0)
			break;
		event[len] = '\0';
		for (field = event; field < event + len;
		     field += strlen(field) + 1) {
			if (strncmp(field, name, strlen(name)))
				continue;
			for (i = 0; i < ARRAY_SIZE(outcomes); i++)
				if (!strcmp(field + strlen(name), outcomes[i]))
					return outcomes[i];
		}
	}

	return "";
}

static int listen_to_uevents(void)
{
	struct sockaddr_nl address = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1,
	};
	int size = 1 << 20;
	int fd;

	fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC,
		    NETLINK_KOBJECT_UEVENT);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}

	return fd;
}

FIXTURE(control) {
	char enabled[8];
};

FIXTURE_SETUP(control)
{
	ASSERT_TRUE(read_text(CONTROL, "enabled", self->enabled,
			      sizeof(self->enabled)));
}

FIXTURE_TEARDOWN(control)
{
	EXPECT_EQ(0, write_text(CONTROL, "enabled", self->enabled));
}

TEST_F(control, counts)
{
	static const char * const names[] = {
		"rx_bytes", "rx_malformed", "rx_packets", "rx_unknown",
		"sessions", "tx_bytes", "tx_packets", NULL
	};

	EXPECT_STREQ("", not_counted(CONTROL, names));
}

TEST_F(control, is_switched_off_when_write_returns)
{
	char text[32];

	ASSERT_EQ(0, write_text(CONTROL, "enabled", "0"));
	ASSERT_TRUE(read_text(CONTROL, "state", text, sizeof(text)));
	EXPECT_STREQ("disabled", text);
	ASSERT_TRUE(read_text(CONTROL, "version", text, sizeof(text)));
	EXPECT_STREQ("none", text);
	ASSERT_TRUE(read_text(CONTROL, "enabled", text, sizeof(text)));
	EXPECT_STREQ("0", text);
}

TEST_F(control, negotiates_when_switched_on)
{
	long long sent, received;
	char text[32];
	int fd;

	ASSERT_EQ(0, write_text(CONTROL, "enabled", "0"));
	sent = counter(CONTROL, "tx_packets");
	received = counter(CONTROL, "rx_packets");
	fd = listen_to_uevents();
	ASSERT_LE(0, fd);

	ASSERT_EQ(0, write_text(CONTROL, "enabled", "1"));
	EXPECT_STREQ("ready", wait_outcome(fd));
	close(fd);

	ASSERT_TRUE(read_text(CONTROL, "state", text, sizeof(text)));
	EXPECT_STREQ("ready", text);
	ASSERT_TRUE(read_text(CONTROL, "version", text, sizeof(text)));
	EXPECT_STREQ("1.0", text);
	EXPECT_EQ(sent + 1, counter(CONTROL, "tx_packets"));
	EXPECT_LT(received, counter(CONTROL, "rx_packets"));
}

TEST_F(control, switched_on_twice_asks_once)
{
	long long sent;
	int fd;

	ASSERT_EQ(0, write_text(CONTROL, "enabled", "0"));
	fd = listen_to_uevents();
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, write_text(CONTROL, "enabled", "1"));
	ASSERT_STREQ("ready", wait_outcome(fd));
	close(fd);

	sent = counter(CONTROL, "tx_packets");
	EXPECT_EQ(0, write_text(CONTROL, "enabled", "1"));
	usleep(200000);
	EXPECT_EQ(sent, counter(CONTROL, "tx_packets"));
}

TEST_F(control, takes_nothing_but_yes_and_no)
{
	char text[32];

	EXPECT_EQ(EINVAL, write_text(CONTROL, "enabled", "2"));
	EXPECT_EQ(EINVAL, write_text(CONTROL, "enabled", "-1"));
	EXPECT_EQ(EINVAL, write_text(CONTROL, "enabled", "\n"));
	ASSERT_TRUE(read_text(CONTROL, "enabled", text, sizeof(text)));
	EXPECT_STREQ(self->enabled, text);
	EXPECT_EQ(EACCES, write_text(CONTROL, "state", "ready"));
}

/* A node that somebody may have open: the first that can be had. */
static void open_node(void)
{
	struct dirent *entry;
	char path[64];
	DIR *folder;

	node_error = ENOENT;
	folder = opendir(CLASS);
	if (!folder)
		return;
	while (node_fd < 0) {
		entry = readdir(folder);
		if (!entry)
			break;
		if (strncmp(entry->d_name, "synthrdp", 8))
			continue;
		snprintf(node_name, sizeof(node_name), "%.31s", entry->d_name);
		snprintf(path, sizeof(path), "/dev/%s", node_name);
		node_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		node_error = errno;
	}
	closedir(folder);
}

/* Reads what is there. Returns the last read's result, and its errno. */
static ssize_t drain(void)
{
	char buffer[16384];
	ssize_t ret;

	do {
		ret = read(node_fd, buffer, sizeof(buffer));
	} while (ret > 0);

	return ret;
}

static short poll_now(short events)
{
	struct pollfd look = { .fd = node_fd, .events = events };

	return poll(&look, 1, 0) < 0 ? POLLNVAL : look.revents;
}

FIXTURE(node) {
	char path[64];
	char folder[64];
};

FIXTURE_SETUP(node)
{
	if (node_fd < 0 && node_error == EBUSY)
		SKIP(return, "somebody has the node open: stop the relay");
	if (node_fd < 0 && node_error == ENOENT)
		SKIP(return, "no session: connect with VMConnect");
	ASSERT_LE(0, node_fd)
		TH_LOG("%s: %s", node_name, strerror(node_error));
	snprintf(self->path, sizeof(self->path), "/dev/%s", node_name);
	snprintf(self->folder, sizeof(self->folder), CLASS "%s/", node_name);
}

FIXTURE_TEARDOWN(node)
{
}

TEST_F(node, counts)
{
	static const char * const names[] = {
		"rx_bytes", "rx_malformed", "rx_packets", "sessions",
		"tx_bytes", "tx_packets", "tx_waits", NULL
	};

	EXPECT_STREQ("", not_counted(self->folder, names));
	EXPECT_LT(0, counter(self->folder, "sessions"));
}

TEST_F(node, has_one_opener)
{
	long long sessions = counter(self->folder, "sessions");

	EXPECT_EQ(-1, open(self->path, O_RDWR));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(sessions, counter(self->folder, "sessions"));
}

TEST_F(node, is_a_stream)
{
	EXPECT_EQ(-1, lseek(node_fd, 0, SEEK_CUR));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwrite(node_fd, "x", 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED, node_fd,
				   0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F(node, is_no_terminal)
{
	struct termios settings;

	EXPECT_EQ(-1, ioctl(node_fd, TCGETS, &settings));
	EXPECT_EQ(ENOTTY, errno);
}

TEST_F(node, reads_and_writes_of_nothing_do_nothing)
{
	long long bytes = counter(self->folder, "tx_bytes");
	long long packets = counter(self->folder, "tx_packets");
	char byte;

	EXPECT_EQ(0, read(node_fd, &byte, 0));
	EXPECT_EQ(0, write(node_fd, &byte, 0));
	EXPECT_EQ(bytes, counter(self->folder, "tx_bytes"));
	EXPECT_EQ(packets, counter(self->folder, "tx_packets"));
}

TEST_F(node, writes_nothing_from_a_bad_address)
{
	long long packets = counter(self->folder, "tx_packets");
	void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	ASSERT_NE(MAP_FAILED, bad);
	EXPECT_EQ(-1, write(node_fd, bad, 4096));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(packets, counter(self->folder, "tx_packets"));
}

TEST_F(node, says_when_it_is_empty)
{
	struct iovec to;
	char byte;

	EXPECT_EQ(-1, drain());
	EXPECT_EQ(EAGAIN, errno);

	/* RWF_NOWAIT says the same where O_NONBLOCK does not. */
	to = (struct iovec) { .iov_base = &byte, .iov_len = 1 };
	ASSERT_EQ(0, fcntl(node_fd, F_SETFL, 0));
	EXPECT_EQ(-1, preadv2(node_fd, &to, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, fcntl(node_fd, F_SETFL, O_NONBLOCK));
}

TEST_F(node, polls_as_it_reads_and_writes)
{
	drain();
	EXPECT_EQ(POLLOUT, poll_now(POLLIN | POLLOUT | POLLRDHUP));
	EXPECT_EQ(0, poll_now(POLLIN));
}

static void no_restart(int signum)
{
}

TEST_F(node, wakes_a_reader_that_is_signalled)
{
	struct sigaction action = { .sa_handler = no_restart };
	struct itimerval often = {
		.it_value.tv_usec = 100000,
		.it_interval.tv_usec = 100000,
	};
	char byte;

	drain();
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, fcntl(node_fd, F_SETFL, 0));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	EXPECT_EQ(-1, read(node_fd, &byte, 1));
	EXPECT_EQ(EINTR, errno);
	often = (struct itimerval) { 0 };
	EXPECT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	EXPECT_EQ(0, fcntl(node_fd, F_SETFL, O_NONBLOCK));
}

TEST_F(node, counts_what_it_sends)
{
	long long bytes = counter(self->folder, "tx_bytes");
	long long packets = counter(self->folder, "tx_packets");

	EXPECT_EQ(9, write(node_fd, "kselftest", 9));
	EXPECT_EQ(bytes + 9, counter(self->folder, "tx_bytes"));
	EXPECT_EQ(packets + 1, counter(self->folder, "tx_packets"));
}

/* Last: it ends the session. */
TEST_F(node, hangs_up_when_unbound)
{
	struct pollfd hang_up = { .fd = node_fd };
	char target[256];
	char link[96];
	char *device;
	ssize_t len;
	int i;

	snprintf(link, sizeof(link), "%sdevice", self->folder);
	len = readlink(link, target, sizeof(target) - 1);
	ASSERT_LT(0, len);
	target[len] = '\0';
	device = basename(target);

	ASSERT_EQ(0, write_text(DRIVER, "unbind", device));
	EXPECT_EQ(1, poll(&hang_up, 1, ANSWER_MS));
	EXPECT_EQ(POLLHUP, hang_up.revents);
	EXPECT_EQ(0, drain());
	EXPECT_EQ(POLLIN | POLLHUP, poll_now(POLLIN | POLLOUT));
	EXPECT_EQ(-1, write(node_fd, "x", 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_NE(0, access(self->folder, F_OK));

	/* The old node is still open, the new one is another. */
	EXPECT_EQ(0, write_text(DRIVER, "bind", device));
	for (i = 0; i < 100 && access(self->path, F_OK); i++)
		usleep(50000);
	EXPECT_EQ(0, access(self->path, F_OK));
}

int main(int argc, char **argv)
{
	if (geteuid())
		ksft_exit_skip("has to run as root\n");
	if (access(CONTROL "state", F_OK))
		ksft_exit_skip("no control device: no Hyper-V, or no driver\n");

	open_node();

	return test_harness_run(argc, argv);
}
