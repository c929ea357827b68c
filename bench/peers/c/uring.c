/* Newline echo, written by hand over io_uring: the limit that servers over io_uring are compared with.
 *
 * One multishot receive per connection into a ring of shared buffers; at the end of a turn one send
 * per connection. Sends report only what is not success: a send without a completion after enter()
 * has gone out whole. A completion carries EAGAIN or a partial count; then the rest is sent again,
 * waiting for room, and the receive is cancelled until that has left.
 *
 * Replies are built in one arena, which is free again once the sends of the turn are known. */
#include "common.h"

#include <liburing.h>

#define ENTRIES 4096
#define COMPLETIONS 32768
#define BUFFERS 256
#define BUFFER_BYTES (16 * 1024)
#define ARENA_BYTES (16 * 1024 * 1024)

enum op { NOTHING, ACCEPT, RECEIVE, SEND, REST };

struct conn {
    char *in;  /* the beginning of a line; while output waits, whatever else has come */
    char *out; /* in the arena; while `waits`, what the socket did not take, in its own memory */
    unsigned in_length, in_seen, out_length, out_sent;
    /* A receive is armed; the rest of a send is; the peer has finished; the connection failed. */
    unsigned char receiving, waits, finished, failed;
};

static struct conn conns[FDS_MAX];
static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char *memory, *arena;
static size_t arena_used;
/* The operation that was prepared last. */
static struct io_uring_sqe *last;
/* The connections with a send in this turn, and those to be looked at for closing. */
static int dirty[FDS_MAX], dirty_count, ending[FDS_MAX], ending_count, listener;

static struct io_uring_sqe *operation(enum op op, int fd) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    if (!sqe) die("io_uring_get_sqe");
    sqe->user_data = (unsigned long long)op << 32 | (unsigned)fd;
    return sqe;
}

/* Preparing an operation clears its user data in some versions of the library. */
#define PREPARE(op, fd, call, ...)                                                                 \
    do {                                                                                           \
        last = operation(op, fd);                                                                  \
        unsigned long long data_ = last->user_data;                                                \
        call(last, __VA_ARGS__);                                                                   \
        last->user_data = data_;                                                                   \
    } while (0)

static void arm_accept(void) {
    PREPARE(ACCEPT, listener, io_uring_prep_multishot_accept, listener, NULL, NULL, SOCK_CLOEXEC);
}

static void arm_receive(int fd) {
    PREPARE(RECEIVE, fd, io_uring_prep_recv_multishot, fd, NULL, 0, 0);
    last->flags |= IOSQE_BUFFER_SELECT;
    last->buf_group = 0;
    conns[fd].receiving = 1;
}

static void cancel_receive(int fd) {
    unsigned long long data = (unsigned long long)RECEIVE << 32 | (unsigned)fd;
    PREPARE(NOTHING, fd, io_uring_prep_cancel64, data, 0);
    last->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

static void send_rest(int fd) {
    struct conn *c = &conns[fd];
    size_t left = c->out_length - c->out_sent;
    PREPARE(REST, fd, io_uring_prep_send, fd, c->out + c->out_sent, left,
            MSG_NOSIGNAL | MSG_WAITALL);
    c->waits = 1;
}

static void look_at_end(int fd) {
    if (ending_count < FDS_MAX) ending[ending_count++] = fd;
}

static void fail(int fd) {
    conns[fd].failed = 1;
    look_at_end(fd);
    if (conns[fd].receiving) cancel_receive(fd);
}

/* Closes a connection once the kernel holds nothing of it. */
static void close_if_done(int fd) {
    struct conn *c = &conns[fd];
    if (!(c->failed || c->finished) || c->receiving || c->waits || c->out_length) return;
    free(c->in);
    memset(c, 0, sizeof *c);
    close(fd);
}

/* Copies the lines of `bytes` into the arena. Returns how many bytes they were. */
static size_t append(int fd, const char *bytes, size_t length, size_t from) {
    struct conn *c = &conns[fd];
    if (c->out_length && c->out + c->out_length != arena + arena_used) {
        memcpy(arena + arena_used, c->out, c->out_length);
        c->out = arena + arena_used;
        arena_used += c->out_length;
    }
    if (!c->out_length) c->out = arena + arena_used;
    size_t used = echo_lines(bytes, length, from, arena + arena_used);
    arena_used += used;
    if (used && !c->out_length) dirty[dirty_count++] = fd;
    c->out_length += used;
    return used;
}

/* Handles what has arrived, and what is kept. */
static void take(int fd, const char *bytes, size_t length) {
    struct conn *c = &conns[fd];
    if (!length && !c->in) return;
    if (!c->in && !c->waits) {
        size_t used = append(fd, bytes, length, 0), rest = length - used;
        if (rest) c->in = keep(bytes + used, rest);
        c->in_length = c->in_seen = rest;
        return;
    }
    if (length) {
        c->in = realloc(c->in, c->in_length + length);
        if (!c->in) die("realloc");
        memcpy(c->in + c->in_length, bytes, length);
        c->in_length += length;
    }
    if (c->waits || c->in_seen == c->in_length) return;
    size_t used = append(fd, c->in, c->in_length, c->in_seen), rest = c->in_length - used;
    char *in = rest ? keep(c->in + used, rest) : NULL;
    free(c->in);
    c->in = in;
    c->in_length = c->in_seen = rest;
    if (rest > LINE_MAX_BYTES) fail(fd);
}

static void on_accept(struct io_uring_cqe *cqe) {
    if (cqe->res >= 0 && cqe->res < FDS_MAX) arm_receive(cqe->res);
    else if (cqe->res >= 0) close(cqe->res);
    if (!(cqe->flags & IORING_CQE_F_MORE)) arm_accept();
}

static void on_receive(int fd, struct io_uring_cqe *cqe) {
    struct conn *c = &conns[fd];
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        int id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        char *bytes = memory + (size_t)id * BUFFER_BYTES;
        if (cqe->res > 0 && !c->failed) take(fd, bytes, cqe->res);
        io_uring_buf_ring_add(buffers, bytes, BUFFER_BYTES, id, BUFFERS - 1, 0);
        io_uring_buf_ring_advance(buffers, 1);
    }
    if (cqe->flags & IORING_CQE_F_MORE) return;
    c->receiving = 0;
    if (cqe->res == 0) c->finished = 1;
    else if (cqe->res < 0 && cqe->res != -ENOBUFS && cqe->res != -ECANCELED) c->failed = 1;
    if (c->finished || c->failed) look_at_end(fd);
    else if (!c->waits) arm_receive(fd);
}

/* A send of the turn before, which fell short. */
static void on_send(int fd, int result) {
    struct conn *c = &conns[fd];
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
        c->out_length = 0;
        fail(fd);
        return;
    }
    size_t sent = result > 0 ? result : 0;
    c->out_length -= sent;
    c->out_sent = 0;
    c->out = keep(c->out + sent, c->out_length);
    if (c->receiving) cancel_receive(fd);
    send_rest(fd);
}

static void on_rest(int fd, int result) {
    struct conn *c = &conns[fd];
    c->waits = 0;
    if (result > 0) c->out_sent += result;
    if (c->out_sent < c->out_length && (result > 0 || result == -EAGAIN || result == -EINTR)) {
        send_rest(fd);
        return;
    }
    if (c->out_sent < c->out_length) c->failed = 1;
    free(c->out);
    c->out_length = c->out_sent = 0;
    if (!c->failed) {
        /* Lines may have come while nothing could be sent. */
        c->in_seen = 0;
        take(fd, NULL, 0);
    }
    if (c->failed || c->finished) look_at_end(fd);
    else if (!c->receiving) arm_receive(fd);
}

/* Sends that fell short come first: after them, what the others used is free. */
static void settle_sends(void) {
    struct io_uring_cqe *cqe;
    unsigned head;
    io_uring_for_each_cqe(&ring, head, cqe) {
        if (cqe->user_data >> 32 != SEND) continue;
        on_send((int)(unsigned)cqe->user_data, cqe->res);
        cqe->user_data = (unsigned long long)NOTHING << 32;
    }
    for (int i = 0; i < dirty_count; i++)
        if (!conns[dirty[i]].waits) conns[dirty[i]].out_length = 0;
    dirty_count = 0;
    arena_used = 0;
}

static void handle_completions(void) {
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring, head, cqe) {
        int fd = (int)(unsigned)cqe->user_data;
        /* What does not fit any more waits for the next turn. */
        size_t need = conns[fd].in_length + conns[fd].out_length + BUFFER_BYTES;
        if (arena_used + need > ARENA_BYTES) break;
        switch (cqe->user_data >> 32) {
        case ACCEPT: on_accept(cqe); break;
        case RECEIVE: on_receive(fd, cqe); break;
        case REST: on_rest(fd, cqe->res); break;
        }
        count++;
    }
    io_uring_cq_advance(&ring, count);
}

static void submit_sends(void) {
    for (int i = 0; i < dirty_count; i++) {
        struct conn *c = &conns[dirty[i]];
        PREPARE(SEND, dirty[i], io_uring_prep_send, dirty[i], c->out, c->out_length,
                MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL);
        last->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
}

static void open_ring(void) {
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf);
    int error = io_uring_queue_init_params(ENTRIES, &ring, &params);
    if (error < 0) {
        errno = -error;
        die("io_uring_queue_init_params");
    }
    if (posix_memalign((void **)&buffers, 4096, ring_bytes)) die("posix_memalign");
    struct io_uring_buf_reg reg = {.ring_addr = (unsigned long)buffers, .ring_entries = BUFFERS};
    if ((error = io_uring_register_buf_ring(&ring, &reg, 0)) < 0) {
        errno = -error;
        die("io_uring_register_buf_ring");
    }
    memory = malloc((size_t)BUFFERS * BUFFER_BYTES);
    arena = malloc(ARENA_BYTES);
    if (!memory || !arena) die("malloc");
    io_uring_buf_ring_init(buffers);
    for (int i = 0; i < BUFFERS; i++)
        io_uring_buf_ring_add(buffers, memory + (size_t)i * BUFFER_BYTES, BUFFER_BYTES, i,
                              BUFFERS - 1, i);
    io_uring_buf_ring_advance(buffers, BUFFERS);
}

int main(int argc, char **argv) {
    listener = listen_at(argc, argv);
    open_ring();
    arm_accept();
    for (;;) {
        /* Whoever is to be closed must not wait for others to have something to say. */
        int error = io_uring_submit_and_wait(&ring, ending_count ? 0 : 1);
        if (error < 0 && error != -EINTR && error != -EBUSY) {
            errno = -error;
            die("io_uring_submit_and_wait");
        }
        settle_sends();
        for (int i = 0, count = ending_count; i < count; i++) close_if_done(ending[i]);
        ending_count = 0;
        handle_completions();
        submit_sends();
    }
}
