/* Newline echo with libevent's bufferevents, as its documentation suggests. */
#include "common.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#define HIGH (64 * 1024)

static void on_last_written(struct bufferevent *conn, void *unused) {
    (void)unused;
    bufferevent_free(conn);
}

/* After the end of input, what waits is still sent. */
static void on_event(struct bufferevent *conn, short what, void *unused) {
    (void)unused;
    int waits = evbuffer_get_length(bufferevent_get_output(conn)) > 0;
    if ((what & BEV_EVENT_EOF) && waits) {
        bufferevent_disable(conn, EV_READ);
        bufferevent_setcb(conn, NULL, on_last_written, on_event, NULL);
    } else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        bufferevent_free(conn);
    }
}

static void on_read(struct bufferevent *conn, void *unused) {
    struct evbuffer *in = bufferevent_get_input(conn), *out = bufferevent_get_output(conn);
    struct evbuffer_ptr end;
    (void)unused;
    while ((end = evbuffer_search_eol(in, NULL, NULL, EVBUFFER_EOL_LF)).pos >= 0)
        evbuffer_remove_buffer(in, out, end.pos + 1);
    if (evbuffer_get_length(in) > LINE_MAX_BYTES) bufferevent_free(conn);
    else if (evbuffer_get_length(out) > HIGH) bufferevent_disable(conn, EV_READ);
}

/* All output has left. */
static void on_written(struct bufferevent *conn, void *unused) {
    (void)unused;
    if (bufferevent_get_enabled(conn) & EV_READ) return;
    bufferevent_enable(conn, EV_READ);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer,
                      int length, void *base) {
    (void)listener, (void)peer, (void)length;
    struct bufferevent *conn = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!conn) {
        close(fd);
        return;
    }
    bufferevent_set_max_single_read(conn, READ_BYTES);
    bufferevent_set_max_single_write(conn, READ_BYTES);
    bufferevent_setcb(conn, on_read, on_written, on_event, NULL);
    bufferevent_enable(conn, EV_READ | EV_WRITE);
}

int main(int argc, char **argv) {
    int fd = listen_at(argc, argv);
    struct event_base *base = event_base_new();
    if (!base) die("event_base_new");
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;
    if (!evconnlistener_new(base, on_accept, base, flags, 0, fd)) die("evconnlistener_new");
    return event_base_dispatch(base) < 0;
}
