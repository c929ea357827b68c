// A relay by hand over epoll: relay PORT UPSTREAM-PORT copy|splice. Level-triggered, one read and one
// write a turn and direction. A side is not read from while the other has not taken what was read.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 65536 };

// What was read of one side and not yet taken by the other.
struct side {
    struct side *other;
    int fd, pipe[2];
    size_t held, begin;
    char *bytes; // only while some are held
    int ended, told, is_dead;
    unsigned wanted;
};

static int epoll, is_splice;
static char scratch[SIZE];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void want(struct side *side) {
    unsigned events = (!side->held && !side->ended ? EPOLLIN : 0) | (side->other->held ? EPOLLOUT : 0);
    if (events == side->wanted) return;
    struct epoll_event event = {events, {.ptr = side}};
    side->wanted = events;
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, side->fd, &event)) fail("epoll_ctl");
}

static struct side *gone; // freed behind the turn: events may still name them

static void end(struct side *side) {
    if (side->is_dead) return;
    struct side *both[] = {side, side->other};
    for (int i = 0; i < 2; i++) {
        close(both[i]->fd);
        if (is_splice) close(both[i]->pipe[0]), close(both[i]->pipe[1]);
        free(both[i]->bytes);
        both[i]->is_dead = 1;
    }
    side->other->other = gone;
    gone = side;
}

// 0: it would block; -1: it is over.
static ssize_t again(ssize_t count) {
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : count < 0 ? -1 : count;
}

// What this side sent goes to the other one.
static int flush(struct side *from) {
    while (from->held) {
        ssize_t count = is_splice
            ? splice(from->pipe[0], NULL, from->other->fd, NULL, from->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            : send(from->other->fd, (from->bytes ? from->bytes : scratch) + from->begin, from->held, MSG_NOSIGNAL);
        if ((count = again(count)) < 0) return -1;
        if (!count) break;
        from->held -= count, from->begin += count;
    }
    if (!from->held) free(from->bytes), from->bytes = NULL;
    else if (!is_splice && !from->bytes) {
        from->bytes = malloc(from->held);
        memcpy(from->bytes, scratch + from->begin, from->held);
        from->begin = 0;
    }
    if (!from->held && from->ended && !from->told) {
        from->told = 1;
        shutdown(from->other->fd, SHUT_WR);
    }
    return 0;
}

static int receive(struct side *side) {
    ssize_t count = is_splice
        ? splice(side->fd, NULL, side->pipe[1], NULL, SIZE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        : recv(side->fd, scratch, SIZE, 0);
    if (count < 0) return again(count);
    if (!count) side->ended = 1;
    side->held = count, side->begin = 0;
    return flush(side);
}

static struct side *make(int fd) {
    struct side *side = calloc(1, sizeof *side);
    int one = 1;
    side->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (is_splice && pipe2(side->pipe, O_NONBLOCK | O_CLOEXEC)) fail("pipe2");
    struct epoll_event event = {side->wanted = EPOLLIN, {.ptr = side}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
    return side;
}

static void accept_one(int listener, int upstream) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct sockaddr_in to = {AF_INET, htons(upstream), {htonl(INADDR_LOOPBACK)}};
    int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (out < 0 || connect(out, (void *)&to, sizeof to)) fail("connect");
    fcntl(out, F_SETFL, O_NONBLOCK);
    struct side *client = make(fd), *server = make(out);
    client->other = server, server->other = client;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    is_splice = !strcmp(argv[3], "splice");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sockaddr_in at = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 1024)) fail("listen");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[128], event = {EPOLLIN, {.ptr = NULL}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) fail("epoll_ctl");
    for (;;) {
        int count = epoll_wait(epoll, events, 128, -1);
        for (int i = 0; i < count; i++) {
            struct side *side = events[i].data.ptr;
            if (!side) {
                accept_one(listener, atoi(argv[2]));
                continue;
            }
            if (side->is_dead) continue;
            struct side *other = side->other;
            int is_over = events[i].events & (EPOLLERR | EPOLLHUP);
            if (events[i].events & EPOLLOUT) is_over |= flush(other) < 0;
            if (events[i].events & EPOLLIN && !side->held && !side->ended) is_over |= receive(side) < 0;
            if (is_over || (side->told && other->told)) end(side);
            else want(side), want(other);
        }
        while (gone) {
            struct side *next = gone->other, *after = next->other;
            free(gone), free(next);
            gone = after;
        }
    }
}
