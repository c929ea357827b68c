/* Newline echo with libuv: shared buffers, a write that is tried at once, and one that waits if the
 * socket did not take all; meanwhile the connection is not read from. */
#include "common.h"

#include <uv.h>

struct conn {
    uv_tcp_t tcp;
    uv_write_t write;
    char *in, *out; /* the beginning of a line; what the socket did not take */
    size_t in_length;
};

static char input[LINE_MAX_BYTES + READ_BYTES], output[LINE_MAX_BYTES + READ_BYTES];

static void on_closed(uv_handle_t *handle) {
    struct conn *c = handle->data;
    free(c->in);
    free(c->out);
    free(c);
}

static void close_conn(struct conn *c) {
    if (!uv_is_closing((uv_handle_t *)&c->tcp)) uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct conn *c = handle->data;
    (void)suggested;
    if (c->in_length) memcpy(input, c->in, c->in_length);
    *buf = uv_buf_init(input + c->in_length, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void on_written(uv_write_t *write, int status) {
    struct conn *c = write->data;
    free(c->out);
    c->out = NULL;
    if (status < 0) close_conn(c);
    else uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

static void reply(struct conn *c, size_t length) {
    uv_buf_t buf = uv_buf_init(output, length);
    int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    if (n == (int)length) return;
    if (n < 0 && n != UV_EAGAIN) {
        close_conn(c);
        return;
    }
    if (n < 0) n = 0;
    c->out = keep(output + n, length - n);
    buf = uv_buf_init(c->out, length - n);
    c->write.data = c;
    uv_read_stop((uv_stream_t *)&c->tcp);
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) < 0) close_conn(c);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
    struct conn *c = stream->data;
    (void)buf;
    if (n == 0) return;
    if (n < 0) {
        close_conn(c);
        return;
    }
    size_t had = c->in_length, length = had + n;
    size_t used = echo_lines(input, length, had, output), rest = length - used;
    if (rest > LINE_MAX_BYTES) {
        close_conn(c);
        return;
    }
    if (had) free(c->in);
    c->in = rest ? keep(input + used, rest) : NULL;
    c->in_length = rest;
    if (used) reply(c, used);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) return;
    struct conn *c = calloc(1, sizeof *c);
    if (!c) die("calloc");
    c->tcp.data = c;
    uv_tcp_init(listener->loop, &c->tcp);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) < 0) {
        close_conn(c);
        return;
    }
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

int main(int argc, char **argv) {
    uv_tcp_t listener;
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_init(loop, &listener);
    if (uv_tcp_open(&listener, listen_at(argc, argv)) < 0) die("uv_tcp_open");
    if (uv_listen((uv_stream_t *)&listener, 4096, on_connection) < 0) die("uv_listen");
    return uv_run(loop, UV_RUN_DEFAULT);
}
