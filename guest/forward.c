#define _GNU_SOURCE
#include "forward.h"

#include "dns.h"
#include "egress.h"
#include "events.h"
#include "fatal.h"
#include "netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORIGINAL_DESTINATION 80 /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, whose headers clash with libc's */

enum {
    FLOWS_MAX = 1024,
    BACKLOG = 4096,
    CHUNK = 256 * 1024,           /* in flight a direction */
    SMALL_CHUNK = 4096,           /* the same, once many receivers are slow */
    KEPT_BYTES_MAX = 32 << 20,    /* all that slow receivers may make us keep */
    ROUNDS_A_TURN = 8,
    ACCEPTS_A_TURN = 64,
    RETRY_MS = 2,
    RETRIES_MAX = 5000,
};

struct flow;

struct side {
    struct watch watch;
    struct flow *flow;
};

/* One direction of a flow. */
struct lane {
    uint8_t *kept; /* received and not yet sent */
    size_t from, length;
    bool ended;  /* nothing more will come */
    bool closed; /* and the receiver has been told */
};

struct flow {
    struct side inner, outer; /* the guest's connection; the exit's */
    struct lane leaving, coming;
    bool open; /* the exit has said yes */
    enum flow_kind kind;
    struct sockaddr_storage destination;
    struct timer retry;
    unsigned retries;
};

struct listener {
    struct watch watch;
    enum flow_kind kind;
};

static unsigned flow_count;
static size_t kept_bytes;
static int reserve_fd = -1;
static uint8_t chunk[CHUNK];

/* Closing with a reset: an error must not look like an orderly end. */
static void set_reset(int fd)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

static void lane_drop(struct lane *lane)
{
    kept_bytes -= lane->length;
    free(lane->kept);
    lane->kept = NULL;
    lane->length = 0;
}

static void flow_end(struct flow *flow, bool orderly)
{
    if (!orderly)
        set_reset(flow->inner.watch.fd);
    timer_disarm(&flow->retry);
    watch_close(&flow->inner.watch);
    watch_close(&flow->outer.watch);
    lane_drop(&flow->leaving);
    lane_drop(&flow->coming);
    flow_count--;
    events_free_later(flow);
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* Sends what can be sent; keeps the rest. False when the receiver is gone. */
static bool lane_send(struct lane *lane, int to, const uint8_t *bytes, size_t length)
{
    ssize_t sent = send(to, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && !would_block())
        return false;
    size_t left = length - (sent > 0 ? (size_t)sent : 0);
    if (!left)
        return true;
    lane->kept = malloc(left);
    if (!lane->kept)
        return false;
    memcpy(lane->kept, bytes + length - left, left);
    lane->from = 0;
    lane->length = left;
    kept_bytes += left;
    return true;
}

static bool lane_send_kept(struct lane *lane, int to)
{
    ssize_t sent = send(to, lane->kept + lane->from, lane->length, MSG_NOSIGNAL);
    if (sent < 0)
        return would_block();
    lane->from += (size_t)sent;
    lane->length -= (size_t)sent;
    kept_bytes -= (size_t)sent;
    if (!lane->length)
        lane_drop(lane);
    return true;
}

/* One receive and send; `*more` says whether another round may bring something. */
static bool lane_move(struct lane *lane, int from, int to, bool *more)
{
    size_t most = kept_bytes > KEPT_BYTES_MAX ? SMALL_CHUNK : CHUNK;
    ssize_t got = recv(from, chunk, most, 0);
    *more = got == (ssize_t)most;
    if (got < 0)
        return would_block();
    if (got == 0) {
        lane->ended = true;
        return true;
    }
    return lane_send(lane, to, chunk, (size_t)got);
}

/* Moves bytes while both sides are willing. False when the flow must be reset. */
static bool lane_pump(struct lane *lane, int from, int to)
{
    bool more = true;
    if (lane->length && !lane_send_kept(lane, to))
        return false;
    for (int i = 0; i < ROUNDS_A_TURN && more && !lane->length && !lane->ended; i++)
        if (!lane_move(lane, from, to, &more))
            return false;
    if (lane->ended && !lane->length && !lane->closed) {
        shutdown(to, SHUT_WR);
        lane->closed = true;
    }
    return true;
}

static void update_wants(struct flow *flow)
{
    bool read_inner = flow->open && !flow->leaving.ended && !flow->leaving.length;
    bool read_outer = !flow->open || (!flow->coming.ended && !flow->coming.length);
    uint32_t inner = (read_inner ? (uint32_t)EPOLLIN : 0) | (flow->coming.length ? (uint32_t)EPOLLOUT : 0);
    uint32_t outer = (read_outer ? (uint32_t)EPOLLIN : 0) | (flow->leaving.length ? (uint32_t)EPOLLOUT : 0);
    watch_want(&flow->inner.watch, inner);
    watch_want(&flow->outer.watch, outer);
}

/* Reads the exit's answer byte; false when the flow was refused. */
static bool take_answer(struct flow *flow)
{
    uint8_t answer;
    ssize_t got = recv(flow->outer.watch.fd, &answer, 1, 0);
    if (got < 0)
        return would_block();
    flow->open = got == 1 && !answer;
    return flow->open;
}

static void side_ready(struct watch *watch, uint32_t events)
{
    struct side *side = container_of(watch, struct side, watch);
    struct flow *flow = side->flow;
    int inner = flow->inner.watch.fd, outer = flow->outer.watch.fd;
    bool alive = flow->open || take_answer(flow);
    bool readable = events & (EPOLLIN | EPOLLHUP | EPOLLERR), writable = events & EPOLLOUT;
    bool is_inner = side == &flow->inner;
    if (alive && flow->open && (is_inner ? readable : writable))
        alive = lane_pump(&flow->leaving, inner, outer);
    if (alive && flow->open && (is_inner ? writable : readable))
        alive = lane_pump(&flow->coming, outer, inner);
    if (!alive)
        flow_end(flow, false);
    else if (flow->leaving.closed && flow->coming.closed)
        flow_end(flow, true);
    else
        update_wants(flow);
}

/* A burst can outrun the other side's accepting; that is worth some patience, its absence is not. */
static void flow_connect(struct timer *timer)
{
    struct flow *flow = container_of(timer, struct flow, retry);
    int fd = egress_connect(flow->kind, &flow->destination);
    if (fd < 0 && errno == EAGAIN && flow->retries++ < RETRIES_MAX) {
        timer_arm(&flow->retry, RETRY_MS, flow_connect);
        return;
    }
    if (fd < 0) {
        flow_end(flow, false);
        return;
    }
    watch_open(&flow->outer.watch, fd, side_ready);
    update_wants(flow);
}

static bool is_own_address(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
    }
    const struct sockaddr_in *four = (const void *)address;
    uint32_t host = ntohl(four->sin_addr.s_addr);
    return host >> 24 == 127 || host == SANDBOX_ADDRESS;
}

/* Where the connection was meant to go; false when it was made to the listener itself. */
static bool find_destination(int fd, const struct listener *listener, struct sockaddr_storage *destination)
{
    socklen_t size = sizeof *destination;
    memset(destination, 0, sizeof *destination);
    if (getsockname(fd, (struct sockaddr *)destination, &size))
        return false;
    int level = destination->ss_family == AF_INET ? SOL_IP : SOL_IPV6;
    size = sizeof *destination;
    if (getsockopt(fd, level, ORIGINAL_DESTINATION, destination, &size))
        return false;
    uint16_t port = ntohs(((const struct sockaddr_in *)(const void *)destination)->sin_port);
    return listener->kind == FLOW_DNS ? port == 53 : !is_own_address(destination);
}

static void refuse(int fd)
{
    set_reset(fd);
    close(fd);
}

/* With no descriptor left, a connection that waits would wake us for ever: one is kept to take and refuse it. */
static void refuse_without_descriptors(int listener)
{
    close(reserve_fd);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        refuse(fd);
    reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void flow_begin(int fd, const struct listener *listener)
{
    struct sockaddr_storage destination;
    int on = 1;
    bool known = flow_count < FLOWS_MAX && find_destination(fd, listener, &destination);
    struct flow *flow = known ? calloc(1, sizeof *flow) : NULL;
    if (!flow) {
        refuse(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    flow_count++;
    flow->kind = listener->kind;
    flow->destination = destination;
    flow->inner.flow = flow->outer.flow = flow;
    flow->outer.watch.fd = -1;
    watch_open(&flow->inner.watch, fd, side_ready);
    flow_connect(&flow->retry);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    struct listener *listener = container_of(watch, struct listener, watch);
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            flow_begin(fd, listener);
        } else if (errno == EMFILE || errno == ENFILE) {
            refuse_without_descriptors(watch->fd);
        } else {
            return;
        }
    }
}

/* Bound to the loopback address itself: answers must leave from where the redirection put the question. */
static int bind_loopback(int family, int type, uint16_t port)
{
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
    bool is_four = family == AF_INET;
    int on = 1, fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Not for datagrams: with it on both sides, the guest could take the same address and get the questions. */
    bool reuse = type == SOCK_STREAM;
    if (fd < 0 || (reuse && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)) ||
        bind(fd, is_four ? (struct sockaddr *)&four : (struct sockaddr *)&six,
             is_four ? sizeof four : sizeof six) ||
        (type == SOCK_STREAM && listen(fd, BACKLOG)))
        fatal("listener");
    return fd;
}

void forward_serve(int exit_socket)
{
    static const int families[] = {AF_INET, AF_INET6};
    static struct listener listeners[4];
    egress_open(exit_socket);
    reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 4; i++) {
        bool dns = i >= 2;
        int fd = bind_loopback(families[i % 2], SOCK_STREAM, dns ? CAPTURE_DNS_PORT : CAPTURE_PORT);
        listeners[i].kind = dns ? FLOW_DNS : FLOW_TCP;
        watch_open(&listeners[i].watch, fd, listener_ready);
        watch_want(&listeners[i].watch, EPOLLIN);
    }
    for (int i = 0; i < 2; i++)
        dns_serve(bind_loopback(families[i], SOCK_DGRAM, CAPTURE_DNS_PORT));
}
