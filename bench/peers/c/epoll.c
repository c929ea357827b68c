/* Newline echo, written by hand over epoll: the limit that servers over epoll are compared with.
 *
 * Level-triggered. One receive of at most 64 KiB per connection and turn, one send right after it.
 * A connection owns memory only while a line is incomplete or a send fell short; while output waits
 * it is not read from. */
#include "common.h"

#include <sys/epoll.h>

#define EVENTS 256

struct conn {
    char *in;  /* the beginning of a line */
    char *out; /* what the socket did not take */
    unsigned in_length, out_length, out_sent;
};

static struct conn conns[FDS_MAX];
static char input[LINE_MAX_BYTES + READ_BYTES], output[LINE_MAX_BYTES + READ_BYTES];
static int epoll;

static void watch(int fd, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, how, fd, &event) < 0) die("epoll_ctl");
}

static void close_conn(int fd) {
    free(conns[fd].in);
    free(conns[fd].out);
    memset(&conns[fd], 0, sizeof conns[fd]);
    close(fd);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= FDS_MAX) close(fd);
        else watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Sends what waits; when it is gone, reading goes on. */
static void flush(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = send(fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) {
        close_conn(fd);
        return;
    }
    c->out_sent += n;
    if (c->out_sent < c->out_length) return;
    free(c->out);
    c->out = NULL;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void reply(int fd, size_t length) {
    struct conn *c = &conns[fd];
    ssize_t n = send(fd, output, length, MSG_NOSIGNAL);
    if (n == (ssize_t)length) return;
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        close_conn(fd);
        return;
    }
    if (n < 0) n = 0;
    c->out_length = length - n;
    c->out_sent = 0;
    c->out = keep(output + n, c->out_length);
    watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
}

static void receive(int fd) {
    struct conn *c = &conns[fd];
    size_t had = c->in_length;
    if (had) memcpy(input, c->in, had);
    ssize_t n = recv(fd, input + had, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        close_conn(fd);
        return;
    }
    size_t length = had + n, used = echo_lines(input, length, had, output), rest = length - used;
    if (rest > LINE_MAX_BYTES) {
        close_conn(fd);
        return;
    }
    if (had) free(c->in);
    c->in = rest ? keep(input + used, rest) : NULL;
    c->in_length = rest;
    if (used) reply(fd, used);
}

int main(int argc, char **argv) {
    int listener = listen_at(argc, argv);
    struct epoll_event events[EVENTS];
    if ((epoll = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (conns[fd].out) flush(fd);
            else receive(fd);
        }
    }
}
