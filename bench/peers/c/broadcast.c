/* Each line to every connection, written by hand over epoll: the limit for a broadcast.
 *
 * What is said in one turn is appended to each connection's output once, and leaves in one send. A
 * connection that has more than OUT_MAX bytes waiting is closed. */
#include "common.h"

#include <sys/epoll.h>

#define EVENTS 256
#define OUT_MAX (1024 * 1024)

struct conn {
    char *in, *out; /* the beginning of a line; what the socket did not take */
    unsigned in_length, out_length, out_sent;
    int place;
};

static struct conn conns[FDS_MAX];
static int open_fds[FDS_MAX], open_count;
static char input[LINE_MAX_BYTES + READ_BYTES];
static char said[EVENTS * (READ_BYTES + LINE_MAX_BYTES)];
static size_t said_length;
static int epoll;

static void watch(int fd, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, how, fd, &event) < 0) die("epoll_ctl");
}

static void close_conn(int fd) {
    struct conn *c = &conns[fd];
    int last = open_fds[--open_count];
    open_fds[c->place] = last;
    conns[last].place = c->place;
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
    close(fd);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        conns[fd].place = open_count;
        open_fds[open_count++] = fd;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

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

/* Sends what was said to one connection, behind what waits. Whether it is still open. */
static int tell(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = 0;
    size_t left = c->out ? c->out_length - c->out_sent : 0;
    if (!left) n = send(fd, said, said_length, MSG_NOSIGNAL);
    if (n == (ssize_t)said_length) return 1;
    if (n < 0 && errno == EAGAIN) n = 0;
    if (n < 0 || left + said_length - n > OUT_MAX) {
        close_conn(fd);
        return 0;
    }
    char *out = malloc(left + said_length - n);
    if (!out) die("malloc");
    if (left) memcpy(out, c->out + c->out_sent, left);
    memcpy(out + left, said + n, said_length - n);
    if (!c->out) watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    free(c->out);
    c->out = out;
    c->out_sent = 0;
    c->out_length = left + said_length - n;
    return 1;
}

static void receive(int fd) {
    struct conn *c = &conns[fd];
    size_t had = c->in_length;
    if (had) memcpy(input, c->in, had);
    ssize_t n = recv(fd, input + had, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    size_t length = had + (n > 0 ? n : 0), used = 0;
    if (n > 0) used = echo_lines(input, length, had, said + said_length);
    said_length += used;
    if (n <= 0 || length - used > LINE_MAX_BYTES) {
        close_conn(fd);
        return;
    }
    if (had) free(c->in);
    c->in = length - used ? keep(input + used, length - used) : NULL;
    c->in_length = length - used;
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
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            if (conns[fd].out && (events[i].events & EPOLLOUT)) flush(fd);
            else receive(fd);
        }
        for (int i = 0; said_length && i < open_count;) i += tell(open_fds[i]);
        said_length = 0;
    }
}
