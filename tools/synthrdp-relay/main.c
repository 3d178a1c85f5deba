// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "confine.h"
#include "log.h"
#include "relay.h"
#include "server.h"
#include "watch.h"

static const char help[] =
"Usage: " PROGRAM " --device=NODE --server=ADDRESS [--security=rdp|pass]\n"
"       " PROGRAM " --watch --server=ADDRESS [--security=rdp|pass]\n"
"Carry an Enhanced Session of Hyper-V between its device and an RDP server.\n"
"\n"
"  --device=NODE       serve this device, for example /dev/synthrdp0\n"
"  --watch             serve each /dev/synthrdp* as it appears\n"
"  --server=ADDRESS    unix:PATH, tcp:HOST:PORT or vsock:CID:PORT\n"
"  --security=rdp      ask the server for RDP without TLS (default)\n"
"  --security=pass     leave the client's request as it is\n"
"  --help              print this\n"
"  --version           print the version\n";

static enum relay_exit usage(const char *problem, const char *what)
{
	log_line(LOG_ERR, "%s%s%s; see " PROGRAM " --help", problem,
		 what ? ": " : "", what ? what : "");
	return RELAY_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ "security", required_argument, NULL, 'x' },
		{ "server", required_argument, NULL, 's' },
		{ "version", no_argument, NULL, 'V' },
		{ "watch", no_argument, NULL, 'w' },
		{ }
	};
	const char *device = NULL, *address = NULL, *wrong;
	bool rewrite = true, watch = false;
	struct server server;
	int option;

	log_open();
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			device = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return RELAY_OK;
		case 's':
			address = optarg;
			break;
		case 'V':
			puts(PROGRAM " " VERSION);
			return RELAY_OK;
		case 'w':
			watch = true;
			break;
		case 'x':
			rewrite = !strcmp(optarg, "rdp");
			if (!rewrite && strcmp(optarg, "pass"))
				return usage("--security must be rdp or pass, not",
					     optarg);
			break;
		case ':':
			return usage("missing value", argv[optind - 1]);
		default:
			return usage("unknown option", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return usage("unexpected argument", argv[optind]);
	if (!device == !watch)
		return usage("give either --device or --watch", NULL);
	if (!address)
		return usage("--server is missing", NULL);
	wrong = server_parse(&server, address);
	if (wrong) {
		log_line(LOG_ERR, "--server=%s: %s", address, wrong);
		return RELAY_USAGE;
	}
	if (server.addresses->any.sa_family == AF_UNIX &&
	    !confine_to_unix_sockets())
		log_line(LOG_WARNING, "the network is still open to this process: %s",
			 strerror(errno));
	return (int)(watch ? watch_devices(&server, rewrite) :
			     relay_serve(device, &server, rewrite));
}
