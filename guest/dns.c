#define _GNU_SOURCE
#include "dns.h"

#include "egress.h"
#include "events.h"
#include "fatal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    QUESTIONS_MAX = 256,
    QUESTION_BYTES = 4096,
    ANSWER_BYTES = 1 + 2 + 65535, /* the exit's answer byte, the length, the message */
    DATAGRAMS_A_TURN = 64,
    PATIENCE_MS = 10000,
    RETRY_MS = 5,
    HEADER_BYTES = 12,
    NAME_MAX_BYTES = 255,
    TYPE_AND_CLASS = 4,
    FLAG_RESPONSE = 0x80, /* in byte 2 */
    FLAGS_KEPT = 0x79,    /* opcode and recursion desired */
    RCODE_SERVFAIL = 2,   /* in byte 3 */
};

struct question {
    struct watch watch;
    struct timer patience, retry;
    int listener;
    struct sockaddr_storage client;
    socklen_t client_size;
    size_t length, answer_length, answer_room;
    uint8_t *answer;
    uint8_t bytes[2 + QUESTION_BYTES]; /* with the length that stands before a message in a stream */
};

struct listener {
    struct watch watch;
};

static unsigned question_count;

/* The size of header and first question, or 0 when they are not whole. Compression is not allowed there. */
static size_t question_size(const uint8_t *message, size_t size)
{
    size_t at = HEADER_BYTES;
    while (at < size && message[at]) {
        if (message[at] > 63 || at - HEADER_BYTES > NAME_MAX_BYTES)
            return 0;
        at += 1 + (size_t)message[at];
    }
    at += 1 + TYPE_AND_CLASS;
    return at <= size ? at : 0;
}

size_t dns_servfail(uint8_t *message, size_t size)
{
    if (size < HEADER_BYTES || message[2] & FLAG_RESPONSE)
        return 0;
    bool single = message[4] == 0 && message[5] == 1;
    size_t whole = single ? question_size(message, size) : 0;
    message[2] = (uint8_t)((message[2] & FLAGS_KEPT) | FLAG_RESPONSE);
    message[3] = RCODE_SERVFAIL;
    memset(message + 4, 0, HEADER_BYTES - 4);
    message[5] = whole ? 1 : 0;
    return whole ? whole : HEADER_BYTES;
}

static void send_to_client(const struct question *question, const uint8_t *message, size_t size)
{
    /* A datagram that cannot be sent is lost, as datagrams are. */
    (void)!sendto(question->listener, message, size, MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)&question->client, question->client_size);
}

static void end(struct question *question)
{
    timer_disarm(&question->patience);
    timer_disarm(&question->retry);
    watch_close(&question->watch);
    free(question->answer);
    question->answer = NULL;
    question_count--;
    events_free_later(question);
}

static void fail(struct question *question)
{
    size_t size = dns_servfail(question->bytes + 2, question->length);
    if (size)
        send_to_client(question, question->bytes + 2, size);
    end(question);
}

static void ran_out(struct timer *timer)
{
    fail(container_of(timer, struct question, patience));
}

static bool make_room(struct question *question)
{
    if (question->answer_length < question->answer_room)
        return true;
    size_t room = question->answer_room ? ANSWER_BYTES : 2048;
    uint8_t *more = question->answer_room == ANSWER_BYTES ? NULL : realloc(question->answer, room);
    if (!more)
        return false;
    question->answer = more;
    question->answer_room = room;
    return true;
}

static void answer_ready(struct watch *watch, uint32_t events)
{
    struct question *question = container_of(watch, struct question, watch);
    (void)events;
    if (!make_room(question)) {
        fail(question);
        return;
    }
    ssize_t got = recv(watch->fd, question->answer + question->answer_length,
                       question->answer_room - question->answer_length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || question->answer[0]) {
        fail(question);
        return;
    }
    question->answer_length += (size_t)got;
    if (question->answer_length < 3)
        return;
    size_t size = (size_t)question->answer[1] << 8 | question->answer[2];
    if (question->answer_length - 3 < size)
        return;
    send_to_client(question, question->answer + 3, size);
    end(question);
}

static void ask(struct timer *timer)
{
    struct question *question = container_of(timer, struct question, retry);
    struct sockaddr_storage nowhere = {.ss_family = AF_INET};
    int fd = egress_connect(FLOW_DNS, &nowhere);
    if (fd < 0 && errno == EAGAIN) {
        timer_arm(&question->retry, RETRY_MS, ask);
        return;
    }
    size_t size = 2 + question->length;
    watch_open(&question->watch, fd, answer_ready);
    if (fd < 0 || send(fd, question->bytes, size, MSG_NOSIGNAL) != (ssize_t)size) {
        fail(question);
        return;
    }
    watch_want(&question->watch, EPOLLIN);
}

/* Takes one datagram; false when there is none. */
static bool take(int listener)
{
    static struct question scratch;
    scratch.client_size = sizeof scratch.client;
    ssize_t got = recvfrom(listener, scratch.bytes + 2, QUESTION_BYTES, MSG_DONTWAIT,
                           (struct sockaddr *)&scratch.client, &scratch.client_size);
    if (got < 0)
        return errno == EINTR;
    scratch.listener = listener;
    scratch.length = (size_t)got;
    scratch.bytes[0] = (uint8_t)(got >> 8);
    scratch.bytes[1] = (uint8_t)got;
    struct question *question = question_count < QUESTIONS_MAX ? malloc(sizeof *question) : NULL;
    if (!question || got < HEADER_BYTES) {
        free(question);
        size_t size = dns_servfail(scratch.bytes + 2, scratch.length);
        if (size)
            send_to_client(&scratch, scratch.bytes + 2, size);
        return true;
    }
    memcpy(question, &scratch, sizeof *question);
    question->watch.fd = -1;
    question_count++;
    timer_arm(&question->patience, PATIENCE_MS, ran_out);
    ask(&question->retry);
    return true;
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    for (int i = 0; i < DATAGRAMS_A_TURN && take(watch->fd); i++)
        continue;
}

void dns_serve(int listener)
{
    struct listener *served = calloc(1, sizeof *served);
    if (!served)
        fatal("dns");
    watch_open(&served->watch, listener, listener_ready);
    watch_want(&served->watch, EPOLLIN);
}
