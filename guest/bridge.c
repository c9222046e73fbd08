#define _GNU_SOURCE
#include "bridge.h"

#include "events.h"
#include "fatal.h"
#include "init.h"
#include "mux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    FLOWS_MAX = 1536, /* over what the agent opens: 1,024 flows and 256 questions */
    BACKLOG = 4096,
    OUT_ROOM = 2 * (MUX_HEAD + MUX_PAYLOAD_MAX),
    FLOW_FRAMES = 4 * (MUX_HEAD + 4), /* all that a flow can owe besides data */
};

/* One connection of the agent. */
struct flow {
    struct watch watch;
    uint32_t id;     /* 0 until it is opened to the host */
    uint32_t credit; /* bytes that the host will still take */
    uint32_t taken;  /* bytes that the agent took and the host was not yet told of */
    uint8_t *kept;   /* from the host, for the agent */
    size_t kept_from, kept_length;
    bool owes_open, owes_end, owes_reset;
    bool readable;   /* there is something to read, or the end; asked again when the port has room */
    bool read_ended, write_ended, shut;
};

static struct watch port, listener;
static struct flow *flows[FLOWS_MAX];
static size_t flow_count, next_turn;
static uint32_t last_id;
static bool hushed, owes_hush;
static uint8_t out[OUT_ROOM], in[2 * (MUX_HEAD + MUX_PAYLOAD_MAX)];
static size_t out_from, out_length, in_length;

/* Frames to the host. */

static size_t out_free(void)
{
    return OUT_ROOM - out_from - out_length;
}

static uint8_t *out_end(void)
{
    return out + out_from + out_length;
}

static void put(uint32_t id, enum mux_kind kind)
{
    mux_head(out_end(), id, kind, 0);
    out_length += MUX_HEAD;
}

static void want_port(void)
{
    watch_want(&port, (uint32_t)EPOLLIN | (out_length ? (uint32_t)EPOLLOUT : 0u));
}

static void want_listener(void)
{
    watch_want(&listener, hushed || flow_count == FLOWS_MAX ? 0 : EPOLLIN);
}

static void want_flow(struct flow *flow)
{
    bool reads = !flow->read_ended && !flow->readable && flow->credit;
    watch_want(&flow->watch, (reads ? (uint32_t)EPOLLIN : 0u) | (flow->kept_length ? (uint32_t)EPOLLOUT : 0u));
}

static void flow_free(struct flow *flow)
{
    for (size_t i = 0; i < flow_count; i++)
        if (flows[i] == flow)
            flows[i] = flows[--flow_count];
    watch_close(&flow->watch);
    free(flow->kept);
    events_free_later(flow);
    want_listener();
}

static void flow_reset(struct flow *flow)
{
    watch_close(&flow->watch);
    flow->owes_reset = true;
    flow->owes_end = flow->readable = false;
    flow->taken = 0;
}

/* Reads what the agent has into one frame; false when there is nothing. */
static void put_data(struct flow *flow)
{
    size_t most = out_free() - MUX_HEAD - FLOW_FRAMES;
    most = most > MUX_PAYLOAD_MAX ? MUX_PAYLOAD_MAX : most;
    most = most > flow->credit ? flow->credit : most;
    flow->readable = false;
    ssize_t got = recv(flow->watch.fd, out_end() + MUX_HEAD, most, MSG_DONTWAIT);
    if (got > 0) {
        mux_head(out_end(), flow->id, MUX_DATA, (size_t)got);
        out_length += MUX_HEAD + (size_t)got;
        flow->credit -= (uint32_t)got;
    } else if (got == 0) {
        flow->read_ended = flow->owes_end = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        flow_reset(flow);
    }
}

static void put_owed(struct flow *flow)
{
    if (flow->owes_open) { /* numbered only now: numbers go up in the order of opening, turns do not */
        if (last_id == UINT32_MAX)
            init_end("exit", EOVERFLOW);
        flow->id = ++last_id;
        put(flow->id, MUX_OPEN);
    }
    if (flow->taken >= MUX_WINDOW / 4 || (flow->taken && flow->write_ended)) {
        mux_credit(out_end(), flow->id, flow->taken);
        out_length += MUX_HEAD + 4;
        flow->taken = 0;
    }
    flow->owes_open = false;
    if (flow->readable && flow->credit && !flow->owes_reset)
        put_data(flow);
    if (flow->owes_end)
        put(flow->id, MUX_END);
    if (flow->owes_reset)
        put(flow->id, MUX_RESET);
    flow->owes_end = false;
}

static bool owes(const struct flow *flow)
{
    return flow->owes_open || flow->owes_end || flow->owes_reset || flow->taken >= MUX_WINDOW / 4 ||
           (flow->readable && flow->credit);
}

static void settle(struct flow *flow)
{
    bool over = flow->read_ended && flow->shut && !flow->owes_end && !flow->owes_open;
    if (flow->owes_reset ? !owes(flow) : over) {
        flow_free(flow);
        return;
    }
    if (flow->watch.fd >= 0)
        want_flow(flow);
}

static void flush(void)
{
    while (out_length) {
        ssize_t sent = write(port.fd, out + out_from, out_length);
        if (sent <= 0) {
            if (sent < 0 && (errno == EAGAIN || errno == EINTR))
                break;
            init_end("exit", errno);
        }
        out_from += (size_t)sent;
        out_length -= (size_t)sent;
    }
    if (!out_length)
        out_from = 0;
}

/* Each flow in turn, while there is room for all that one can owe and a piece of data. */
static void produce(void)
{
    for (size_t left = flow_count; left-- && flow_count && out_free() > MUX_HEAD + FLOW_FRAMES + 1024;) {
        next_turn = next_turn >= flow_count ? 0 : next_turn;
        struct flow *flow = flows[next_turn++];
        if (!owes(flow)) {
            continue;
        }
        put_owed(flow);
        if (flow->owes_reset) {
            flow_free(flow);
            next_turn--;
        } else {
            settle(flow);
        }
    }
    if (owes_hush && out_free() >= MUX_HEAD) {
        put(0, MUX_HUSH);
        owes_hush = false;
    }
}

static void push(void)
{
    flush();
    if (!out_length) {
        produce();
        flush();
    }
    want_port();
}

/* Connections of the agent. */

static void flow_deliver(struct flow *flow)
{
    while (flow->kept_length) {
        ssize_t sent = send(flow->watch.fd, flow->kept + flow->kept_from, flow->kept_length,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                flow_reset(flow);
            return;
        }
        flow->kept_from += (size_t)sent;
        flow->kept_length -= (size_t)sent;
        flow->taken += (uint32_t)sent;
    }
    if (flow->write_ended && !flow->shut) {
        shutdown(flow->watch.fd, SHUT_WR);
        flow->shut = true;
    }
}

static void flow_ready(struct watch *watch, uint32_t events)
{
    struct flow *flow = container_of(watch, struct flow, watch);
    if (events & EPOLLOUT)
        flow_deliver(flow);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && watch->fd >= 0)
        flow->readable = !flow->read_ended;
    settle(flow);
    push();
}

static void accepted(struct watch *watch, uint32_t events)
{
    (void)events;
    while (flow_count < FLOWS_MAX) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            break;
        struct flow *flow = calloc(1, sizeof *flow);
        if (!flow)
            init_end("exit", ENOMEM);
        flow->credit = MUX_WINDOW;
        flow->owes_open = true;
        watch_open(&flow->watch, fd, flow_ready);
        flows[flow_count++] = flow;
        want_flow(flow);
    }
    want_listener();
    push();
}

/* Frames from the host. */

static struct flow *find(uint32_t id)
{
    for (size_t i = 0; i < flow_count; i++)
        if (flows[i]->id == id && !flows[i]->owes_reset)
            return flows[i];
    return NULL;
}

static void keep(struct flow *flow, const uint8_t *bytes, size_t length)
{
    if (!flow->kept && !(flow->kept = malloc(MUX_WINDOW)))
        init_end("exit", ENOMEM);
    if (flow->kept_length + length > MUX_WINDOW)
        init_end("exit", EPROTO);
    if (flow->kept_from + flow->kept_length + length > MUX_WINDOW) {
        memmove(flow->kept, flow->kept + flow->kept_from, flow->kept_length);
        flow->kept_from = 0;
    }
    memcpy(flow->kept + flow->kept_from + flow->kept_length, bytes, length);
    flow->kept_length += length;
}

static void forget_all(void)
{
    while (flow_count)
        flow_free(flows[flow_count - 1]);
}

static void arrived(const struct mux_frame *frame)
{
    struct flow *flow = frame->flow ? find(frame->flow) : NULL;
    if (frame->kind == MUX_HUSH || frame->kind == MUX_WAKE) {
        forget_all();
        hushed = owes_hush = frame->kind == MUX_HUSH;
        want_listener();
        return;
    }
    if (!flow)
        return; /* it was reset meanwhile */
    switch (frame->kind) {
    case MUX_DATA:
        keep(flow, frame->payload, frame->length);
        flow_deliver(flow);
        break;
    case MUX_END:
        flow->write_ended = true;
        flow_deliver(flow);
        break;
    case MUX_CREDIT: flow->credit += frame->credit; break;
    case MUX_RESET: flow_free(flow); return;
    default: init_end("exit", EPROTO);
    }
    settle(flow);
}

static void port_ready(struct watch *watch, uint32_t events)
{
    struct mux_frame frame;
    enum mux_result result;
    size_t at = 0, used = 0;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t got = read(watch->fd, in + in_length, sizeof in - in_length);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            init_end("exit", got ? errno : 0);
        in_length += got > 0 ? (size_t)got : 0;
    }
    while ((result = mux_decode(in + at, in_length - at, &frame, &used)) == MUX_FRAME) {
        arrived(&frame);
        at += used;
    }
    if (result == MUX_REJECTED)
        init_end("exit", EPROTO);
    memmove(in, in + at, in_length - at);
    in_length -= at;
    push();
}

void bridge_serve(int port_fd, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0666) ||
        listen(fd, BACKLOG))
        fatal("exit");
    watch_open(&port, port_fd, port_ready);
    watch_open(&listener, fd, accepted);
    want_port();
    want_listener();
}
