#include "relay.h"

#include "events.h"
#include "init.h"

#include <errno.h>
#include <unistd.h>

enum { CHUNK = 32 * 1024 }; /* what a virtio port takes in one write */

struct lane {
    struct watch *from, *to;
    uint8_t bytes[CHUNK];
    size_t at, length;
};

static struct watch port, agent;
static struct lane to_agent = {.from = &port, .to = &agent}, to_host = {.from = &agent, .to = &port};

/* The host's leaving ends the machine; the agent's end is followed by the launcher's, which says why. */
static size_t moved(const struct watch *side, ssize_t count)
{
    if (count > 0)
        return (size_t)count;
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (side == &port)
        init_end("channel", count ? errno : 0);
    watch_close(&agent);
    watch_want(&port, 0);
    return 0;
}

static void lane_pump(struct lane *lane)
{
    if (!lane->length) {
        lane->length = moved(lane->from, read(lane->from->fd, lane->bytes, CHUNK));
        lane->at = 0;
    }
    if (lane->length && lane->to->fd >= 0) {
        size_t count = moved(lane->to, write(lane->to->fd, lane->bytes + lane->at, lane->length));
        lane->at += count;
        lane->length -= count;
    }
}

static void update_wants(void)
{
    if (agent.fd < 0)
        return;
    watch_want(&port, (to_agent.length ? 0u : (uint32_t)EPOLLIN) | (to_host.length ? (uint32_t)EPOLLOUT : 0u));
    watch_want(&agent, (to_host.length ? 0u : (uint32_t)EPOLLIN) | (to_agent.length ? (uint32_t)EPOLLOUT : 0u));
}

static void ready(struct watch *watch, uint32_t events)
{
    struct lane *out_of = watch == &port ? &to_agent : &to_host;
    struct lane *into = watch == &port ? &to_host : &to_agent;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !out_of->length)
        lane_pump(out_of);
    if (events & EPOLLOUT && into->length)
        lane_pump(into);
    update_wants();
}

void relay_serve(int port_fd, int socket)
{
    watch_open(&port, port_fd, ready);
    watch_open(&agent, socket, ready);
    update_wants();
}
