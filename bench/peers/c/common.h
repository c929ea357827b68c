/* What the servers in C have in common: the bounds of the job, and a socket that listens. */
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The longest line; who sends more is disconnected. */
#define LINE_MAX_BYTES (64 * 1024)
/* What is received at a time. */
#define READ_BYTES (64 * 1024)
/* More descriptors than the servers are ever given. */
#define FDS_MAX (64 * 1024)

/* How many arguments a server has, its own name counted. */
#ifndef ARGUMENTS
#define ARGUMENTS 2
#endif

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Listens at 127.0.0.1 and the port in `argv`. What is accepted inherits TCP_NODELAY. */
static int listen_at(int argc, char **argv) {
    if (argc != ARGUMENTS) {
        fprintf(stderr, "usage: %s PORT%s\n", argv[0], ARGUMENTS > 2 ? " CERTIFICATE KEY" : "");
        exit(2);
    }
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) die("bind");
    if (listen(fd, 4096) < 0) die("listen");
    return fd;
}

/* Copies each complete line of `bytes` to `out`, which has room for it: the job of the handler.
 * There is no line end before `from`. Returns how many bytes the lines were. */
static inline size_t echo_lines(const char *bytes, size_t length, size_t from, char *out) {
    size_t used = 0;
    const char *end;
    while ((end = memchr(bytes + from, '\n', length - from))) {
        from = end + 1 - bytes;
        memcpy(out + used, bytes + used, from - used);
        used = from;
    }
    return used;
}

/* `bytes` in memory of their own. */
static inline char *keep(const char *bytes, size_t length) {
    char *copy = malloc(length);
    if (!copy) die("malloc");
    memcpy(copy, bytes, length);
    return copy;
}

#endif
