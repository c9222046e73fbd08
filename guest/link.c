#include "link.h"

#include "events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    QUEUE_HIGH = 512 * 1024,      /* from here the agent reads no requests and produces nothing */
    QUEUE_LIMIT = 16 * 1024 * 1024, /* what closing frames of all requests can never reach */
};

static struct watch watch;
static frame_call *arrived;
static drained_call *drained;
static uint8_t in[2 * (FRAME_HEAD + PAYLOAD_MAX)];
static size_t in_length;
static uint8_t *out;
static size_t out_from, out_length, out_room;

void link_end(void)
{
    _exit(0);
}

bool link_busy(void)
{
    return out_length >= QUEUE_HIGH;
}

static void update_wants(void)
{
    watch_want(&watch, (link_busy() ? 0u : (uint32_t)EPOLLIN) | (out_length ? (uint32_t)EPOLLOUT : 0u));
}

static size_t try_send(const uint8_t *bytes, size_t length)
{
    ssize_t sent = send(watch.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
        link_end();
    return sent < 0 ? 0 : (size_t)sent;
}

static void keep(const uint8_t *bytes, size_t length)
{
    if (out_from + out_length + length > out_room) {
        if (out_length)
            memmove(out, out + out_from, out_length);
        out_from = 0;
    }
    if (out_length + length > out_room) {
        size_t room = out_length + length + QUEUE_HIGH;
        uint8_t *more = room > QUEUE_LIMIT ? NULL : realloc(out, room);
        if (!more)
            link_end();
        out = more;
        out_room = room;
    }
    memcpy(out + out_from + out_length, bytes, length);
    out_length += length;
    update_wants();
}

void link_send(const uint8_t *bytes, size_t length)
{
    size_t sent = out_length ? 0 : try_send(bytes, length);
    if (sent < length)
        keep(bytes + sent, length - sent);
}

/* Hands over the frames that are complete; stops early when answering them filled the queue. */
static void parse(void)
{
    struct message message;
    size_t at = 0, used = 0;
    while (!link_busy()) {
        enum decoded result = channel_decode(in + at, in_length - at, true, &message, &used);
        if (result == REJECTED)
            link_end();
        if (result == INCOMPLETE)
            break;
        arrived(&message);
        at += used;
    }
    if (at && in_length - at)
        memmove(in, in + at, in_length - at);
    in_length -= at;
}

static void flush(void)
{
    bool was_busy = link_busy();
    size_t sent = try_send(out + out_from, out_length);
    out_from += sent;
    out_length -= sent;
    if (!out_length)
        out_from = 0;
    update_wants();
    if (was_busy && !link_busy()) {
        drained();
        parse(); /* frames that waited are here already and bring no event of their own */
    }
}

static void ready(struct watch *self, uint32_t events)
{
    if (events & EPOLLOUT)
        flush();
    if (link_busy() || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t got = recv(self->fd, in + in_length, sizeof in - in_length, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        link_end();
    if (got > 0) {
        in_length += (size_t)got;
        parse();
    }
}

void link_open(int fd, frame_call *on_frame, drained_call *on_drained)
{
    arrived = on_frame;
    drained = on_drained;
    watch_open(&watch, fd, ready);
    update_wants();
}
