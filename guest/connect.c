#define _GNU_SOURCE
#include "connect.h"

#include "agent.h"
#include "events.h"
#include "link.h"
#include "netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_MS = 10000, READS_A_TURN = 8, DNS_PORT = 53 };

struct connection {
    struct request request;
    struct watch socket;
    struct timer deadline;
    uint8_t *pending; /* what the host sent and the socket has not taken */
    size_t pending_from, pending_length;
    uint16_t port;
    int family;
    bool fall_back; /* IPv6 is still to be tried */
    bool open, we_ended, they_ended, told;
    uint64_t total;
};

static const struct request_calls connection_calls;
static uint8_t chunk[FRAME_HEAD + PAYLOAD_MAX];

static void connection_close(struct connection *connection)
{
    timer_disarm(&connection->deadline);
    watch_close(&connection->socket);
    free(connection->pending);
    connection->pending = NULL;
    request_close(&connection->request);
}

/* The other side must not take an error for an orderly end. */
static void connection_fail(struct connection *connection, int error)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (connection->socket.fd >= 0)
        setsockopt(connection->socket.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    reply_failed(connection->request.id, error, "connection");
    connection_close(connection);
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

static bool starved(const struct connection *connection)
{
    return !connection->request.credit || link_busy();
}

static void update_wants(struct connection *connection)
{
    bool readable = connection->open && !connection->they_ended && !starved(connection);
    bool writable = !connection->open || connection->pending_length;
    watch_want(&connection->socket, (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0));
}

/* Ends it when both sides have; true then. */
static bool finish_if_done(struct connection *connection)
{
    if (!connection->they_ended || !connection->we_ended || connection->pending_length)
        return false;
    struct value total = {.number = connection->total};
    reply(connection->request.id, KIND_END, &total);
    connection_close(connection);
    return true;
}

/* One read; false when there is nothing more for now. On an error the connection is gone: `*alive`. */
static bool receive(struct connection *connection, bool *alive)
{
    struct request *request = &connection->request;
    size_t most = request->credit < PAYLOAD_MAX ? (size_t)request->credit : PAYLOAD_MAX;
    if (starved(connection) || connection->they_ended)
        return false;
    ssize_t got = recv(connection->socket.fd, chunk + FRAME_HEAD, most, 0);
    if (got < 0) {
        *alive = would_block();
        return false;
    }
    if (got == 0) {
        connection->they_ended = true;
        reply(request->id, KIND_FINISHED, NULL);
        return false;
    }
    channel_head(chunk, KIND_BODY, request->id, (uint32_t)got);
    link_send(chunk, FRAME_HEAD + (size_t)got);
    request->credit -= (uint64_t)got;
    connection->total += (uint64_t)got;
    return true;
}

/* Sends what it can; -1 when the other side is gone. */
static ssize_t send_some(struct connection *connection, const uint8_t *bytes, size_t length)
{
    ssize_t sent = length ? send(connection->socket.fd, bytes, length, MSG_NOSIGNAL) : 0;
    if (sent < 0)
        return would_block() ? 0 : -1;
    request_consumed(&connection->request, (uint64_t)sent);
    return sent;
}

static bool send_pending(struct connection *connection)
{
    ssize_t sent =
        send_some(connection, connection->pending + connection->pending_from, connection->pending_length);
    if (sent < 0)
        return false;
    connection->pending_from += (size_t)sent;
    connection->pending_length -= (size_t)sent;
    if (!connection->pending_length)
        connection->pending_from = 0;
    return true;
}

static void end_ours_if_sent(struct connection *connection)
{
    if (!connection->we_ended || connection->told || connection->pending_length)
        return;
    shutdown(connection->socket.fd, SHUT_WR);
    connection->told = true;
}

static void pump(struct connection *connection)
{
    bool alive = !connection->pending_length || send_pending(connection);
    for (int i = 0; alive && i < READS_A_TURN && receive(connection, &alive); i++)
        continue;
    if (!alive) {
        connection_fail(connection, errno);
        return;
    }
    end_ours_if_sent(connection);
    if (!finish_if_done(connection))
        update_wants(connection);
}

/* Starts connecting; false with errno. It names loopback, and nothing else: no address comes from the host. */
static bool dial(struct connection *connection)
{
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = htons(connection->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(connection->port), .sin6_addr = in6addr_loopback};
    bool is_four = connection->family == AF_INET;
    int on = 1, fd = socket(connection->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, is_four ? (struct sockaddr *)&four : (struct sockaddr *)&six,
                is_four ? sizeof four : sizeof six) &&
        errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        errno = error;
        return false;
    }
    connection->socket.fd = fd;
    return true;
}

static bool dial_again(struct connection *connection)
{
    if (!connection->fall_back)
        return false;
    connection->fall_back = false;
    connection->family = AF_INET6;
    return dial(connection);
}

static void socket_ready(struct watch *watch, uint32_t events)
{
    struct connection *connection = container_of(watch, struct connection, socket);
    int error = 0;
    socklen_t size = sizeof error;
    (void)events;
    if (connection->open) {
        pump(connection);
        return;
    }
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size))
        error = errno;
    if (error) {
        watch_close(watch);
        if (dial_again(connection)) {
            watch_open(watch, connection->socket.fd, socket_ready);
            update_wants(connection);
        } else {
            connection_fail(connection, error);
        }
        return;
    }
    struct value family = {.number = connection->family == AF_INET ? 4 : 6};
    timer_disarm(&connection->deadline);
    connection->open = true;
    reply(connection->request.id, KIND_CONNECTED, &family);
    pump(connection);
}

static void late(struct timer *timer)
{
    connection_fail(container_of(timer, struct connection, deadline), ETIMEDOUT);
}

static void keep(struct connection *connection, const uint8_t *bytes, size_t length)
{
    if (connection->pending_length + length > WINDOW_BYTES)
        link_end(); /* the host sent more than it was granted */
    if (!connection->pending)
        connection->pending = malloc(WINDOW_BYTES);
    if (!connection->pending)
        link_end();
    if (connection->pending_from + connection->pending_length + length > WINDOW_BYTES) {
        memmove(connection->pending, connection->pending + connection->pending_from, connection->pending_length);
        connection->pending_from = 0;
    }
    memcpy(connection->pending + connection->pending_from + connection->pending_length, bytes, length);
    connection->pending_length += length;
}

static void connection_input(struct request *request, enum kind kind, const struct value *data)
{
    struct connection *connection = container_of(request, struct connection, request);
    if (kind != KIND_DATA || connection->we_ended)
        return;
    connection->we_ended = !data->length;
    if (data->length)
        keep(connection, data->bytes, data->length);
    if (connection->open)
        pump(connection);
}

static void connection_resume(struct request *request)
{
    struct connection *connection = container_of(request, struct connection, request);
    if (connection->open)
        pump(connection);
}

static void connection_cancel(struct request *request)
{
    connection_fail(container_of(request, struct connection, request), ECANCELED);
}

static const struct request_calls connection_calls = {
    .input = connection_input,
    .resume = connection_resume,
    .cancel = connection_cancel,
};

/* Nobody inside listens there but the agent: behind these ports is the exit. */
static bool leads_out(uint64_t port)
{
    return port == CAPTURE_PORT || port == CAPTURE_DNS_PORT || port == DNS_PORT;
}

void connect_begin(uint32_t id, const struct value *values)
{
    uint64_t port = values[CONNECT_PORT].number, family = values[CONNECT_FAMILY].number;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection || !port || port > UINT16_MAX || leads_out(port) || (family && family != 4 && family != 6)) {
        reply_failed(id, !connection ? ENOMEM : leads_out(port) ? EACCES : EINVAL, "port");
        free(connection);
        return;
    }
    connection->port = (uint16_t)port;
    connection->family = family == 6 ? AF_INET6 : AF_INET;
    connection->fall_back = !family;
    if (!dial(connection) && !dial_again(connection)) {
        reply_failed(id, errno, "connection");
        free(connection);
        return;
    }
    request_open(&connection->request, id, &connection_calls);
    watch_open(&connection->socket, connection->socket.fd, socket_ready);
    timer_arm(&connection->deadline, CONNECT_MS, late);
    update_wants(connection);
}
