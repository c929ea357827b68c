/* Newline echo over TLS, written by hand over epoll and OpenSSL.
 *
 * Level-triggered. OpenSSL reads from the socket itself; as much as it has is taken in a turn, and each
 * batch of lines is one SSL_write. SSL_MODE_RELEASE_BUFFERS, so that an idle connection has no buffers
 * of 16 KiB. While output waits a connection is not read from. */
#define ARGUMENTS 4
#include "common.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>

#define EVENTS 256

struct conn {
    SSL *ssl;
    char *in;  /* the beginning of a line */
    char *out; /* what the socket did not take */
    unsigned in_length, out_length;
    int writes; /* it is watched for that */
};

static struct conn conns[FDS_MAX];
static char input[LINE_MAX_BYTES + READ_BYTES], output[LINE_MAX_BYTES + READ_BYTES];
static int epoll;
static SSL_CTX *context;

static void watch(int fd, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, how, fd, &event) < 0) die("epoll_ctl");
}

static void close_conn(int fd) {
    SSL_free(conns[fd].ssl);
    free(conns[fd].in);
    free(conns[fd].out);
    memset(&conns[fd], 0, sizeof conns[fd]);
    close(fd);
    ERR_clear_error();
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        SSL *ssl = fd < FDS_MAX ? SSL_new(context) : NULL;
        if (!ssl || !SSL_set_fd(ssl, fd)) {
            SSL_free(ssl);
            close(fd);
            continue;
        }
        SSL_set_accept_state(ssl);
        conns[fd].ssl = ssl;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void watch_for(int fd, int writes) {
    if (conns[fd].writes != writes) watch(fd, EPOLL_CTL_MOD, writes ? EPOLLOUT : EPOLLIN);
    conns[fd].writes = writes;
}

/* Whether the connection waits for its socket: to write if that is so, else to read. */
static int waits(int fd, int result) {
    int error = SSL_get_error(conns[fd].ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        watch_for(fd, error == SSL_ERROR_WANT_WRITE);
        return 1;
    }
    if (error == SSL_ERROR_ZERO_RETURN) SSL_shutdown(conns[fd].ssl);
    close_conn(fd);
    return 0;
}

/* Sends what waits; when it is gone, reading goes on. */
static void flush(int fd) {
    struct conn *c = &conns[fd];
    int n = SSL_write(c->ssl, c->out, c->out_length);
    if (n <= 0) {
        waits(fd, n);
        return;
    }
    free(c->out);
    c->out = NULL;
    watch_for(fd, 0);
}

/* Whether all of it is gone. */
static int reply(int fd, size_t length) {
    struct conn *c = &conns[fd];
    int n = SSL_write(c->ssl, output, length);
    if (n > 0) return 1;
    if (!waits(fd, n)) return 0;
    c->out_length = length;
    c->out = keep(output, length);
    watch_for(fd, 1);
    return 0;
}

static void receive(int fd) {
    struct conn *c = &conns[fd];
    for (;;) {
        size_t had = c->in_length;
        if (had) memcpy(input, c->in, had);
        int n = SSL_read(c->ssl, input + had, READ_BYTES);
        if (n <= 0) {
            waits(fd, n);
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
        if (used && !reply(fd, used)) return;
        /* One record is decrypted at a time: what is left of a read is in OpenSSL, where no epoll sees it. */
        if (!SSL_has_pending(c->ssl)) return;
    }
}

int main(int argc, char **argv) {
    int listener = listen_at(argc, argv);
    struct epoll_event events[EVENTS];
    context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        return 1;
    }
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* The same as the others choose: ours, and one ticket. */
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_read_ahead(context, 1);
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
