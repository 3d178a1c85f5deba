// SPDX-License-Identifier: GPL-2.0-only
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "signals.h"

#define DIRECTORY	"/dev"
#define PREFIX		"synthrdp"

/*
 * A device that has been seen. Its number can be used again while its session
 * still ends, so a process belongs to an entry and not to a name.
 */
struct entry {
	struct entry *next;
	ino_t inode;
	pid_t pid;		/* 0: not started, or over */
	bool present;		/* the node is still that of this entry */
	bool started;
	bool barred;		/* it has been said that it is not ours to open */
	char path[32];
};

struct watch {
	int inotify;
	const struct server *server;
	bool rewrite;
	struct entry *entries;
};

static bool is_device(const char *name)
{
	size_t prefix = strlen(PREFIX), digits;

	if (strncmp(name, PREFIX, prefix))
		return false;
	digits = strspn(name + prefix, "0123456789");
	return digits && digits < 10 && !name[prefix + digits];
}

static void start(struct watch *watch, struct entry *entry)
{
	pid_t parent = getpid();

	if (access(entry->path, R_OK | W_OK)) {
		/* udev is not done yet: its chmod() will be another event. */
		if (!entry->barred)
			log_line(LOG_NOTICE, "%s: %s: waiting for udev's rule to open it",
				 entry->path, strerror(errno));
		entry->barred = true;
		return;
	}
	entry->pid = fork();
	if (entry->pid < 0) {
		log_line(LOG_ERR, "%s: fork: %s", entry->path, strerror(errno));
		entry->pid = 0;
		return;
	}
	entry->started = true;
	if (entry->pid)
		return;
	close(watch->inotify);
	/* No session survives its watcher: it would hold its device for ever. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(RELAY_OK);
	_exit((int)relay_serve(entry->path, watch->server, watch->rewrite));
}

static void start_all(struct watch *watch)
{
	struct entry *entry;

	for (entry = watch->entries; entry; entry = entry->next)
		if (entry->present && !entry->started)
			start(watch, entry);
}

static struct entry *find(struct watch *watch, const char *path)
{
	struct entry *entry;

	for (entry = watch->entries; entry; entry = entry->next)
		if (entry->present && !strcmp(entry->path, path))
			return entry;
	return NULL;
}

static void forget(struct watch *watch, const char *path)
{
	struct entry *entry = find(watch, path);

	if (entry)
		entry->present = false;
}

/* The device's node is there: is it a new one? */
static void look_at(struct watch *watch, const char *name)
{
	struct entry *entry;
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), DIRECTORY "/%s", name);
	if (stat(path, &st)) {
		forget(watch, path);
		return;
	}
	entry = find(watch, path);
	if (entry && entry->inode != st.st_ino) {
		entry->present = false;
		entry = NULL;
	}
	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry) {
			log_line(LOG_ERR, "%s: %s", path, strerror(errno));
			return;
		}
		entry->inode = st.st_ino;
		entry->present = true;
		memcpy(entry->path, path, sizeof(path));
		entry->next = watch->entries;
		watch->entries = entry;
	}
}

/* At the start, and when so much happened that the kernel lost count. */
static void scan(struct watch *watch)
{
	struct entry *entry;
	struct dirent *dirent;
	struct stat st;
	DIR *dir;

	for (entry = watch->entries; entry; entry = entry->next)
		if (entry->present && stat(entry->path, &st))
			entry->present = false;

	dir = opendir(DIRECTORY);
	if (!dir) {
		log_line(LOG_ERR, DIRECTORY ": %s", strerror(errno));
		return;
	}
	while ((dirent = readdir(dir)))
		if (is_device(dirent->d_name))
			look_at(watch, dirent->d_name);
	closedir(dir);
}

static void on_event(struct watch *watch, const struct inotify_event *event)
{
	char path[32];

	if (event->mask & IN_Q_OVERFLOW) {
		scan(watch);
	} else if (event->len && is_device(event->name)) {
		if (event->mask & (IN_DELETE | IN_MOVED_FROM)) {
			snprintf(path, sizeof(path), DIRECTORY "/%s",
				 event->name);
			forget(watch, path);
		} else {
			look_at(watch, event->name);
		}
	}
}

static void read_events(struct watch *watch)
{
	union {
		struct inotify_event first;
		char bytes[4096];
	} events;
	const struct inotify_event *event;
	ssize_t at, size;

	while ((size = read(watch->inotify, &events, sizeof(events))) > 0) {
		for (at = 0; at < size;) {
			event = (const void *)(events.bytes + at);
			on_event(watch, event);
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
}

/* options: WNOHANG, or 0 to wait for all that are left */
static void reap(struct watch *watch, int options)
{
	struct entry **link, *entry;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, options)) > 0) {
		for (entry = watch->entries; entry; entry = entry->next) {
			if (entry->pid != pid)
				continue;
			entry->pid = 0;
			if (WIFSIGNALED(status))
				log_line(LOG_ERR, "%s: its relay died of signal %d",
					 entry->path, WTERMSIG(status));
		}
	}
	for (link = &watch->entries; (entry = *link);) {
		if (entry->present || entry->pid) {
			link = &entry->next;
			continue;
		}
		*link = entry->next;
		free(entry);
	}
}

enum relay_exit watch_devices(const struct server *server, bool rewrite)
{
	const unsigned int events = IN_CREATE | IN_ATTRIB | IN_DELETE |
				    IN_MOVED_FROM | IN_MOVED_TO;
	struct watch watch = { .server = server, .rewrite = rewrite };
	struct pollfd pollfd = { .events = POLLIN };
	struct entry *entry;

	signals_hold();
	watch.inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch.inotify < 0 ||
	    inotify_add_watch(watch.inotify, DIRECTORY, events) < 0) {
		log_line(LOG_ERR, "cannot watch " DIRECTORY ": %s",
			 strerror(errno));
		return RELAY_TROUBLE;
	}
	log_line(LOG_INFO, "waiting for " DIRECTORY "/" PREFIX "*");
	/* What appears from here on is an event: nothing is missed. */
	scan(&watch);
	pollfd.fd = watch.inotify;
	while (!signals_stop()) {
		start_all(&watch);
		if (signals_poll(&pollfd, 1, -1)) {
			log_line(LOG_ERR, "poll: %s", strerror(errno));
			break;
		}
		read_events(&watch);
		reap(&watch, WNOHANG);
	}

	for (entry = watch.entries; entry; entry = entry->next) {
		entry->present = false;
		if (entry->pid)
			kill(entry->pid, SIGTERM);
	}
	reap(&watch, 0);
	close(watch.inotify);
	return signals_stop() ? RELAY_OK : RELAY_TROUBLE;
}
