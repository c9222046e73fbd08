#define _GNU_SOURCE
#include "netlink.h"

#include "fatal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void batch_open(struct batch *batch, int protocol, const char *step)
{
    batch->step = step;
    batch->length = batch->message = 0;
    batch->unanswered = 0;
    batch->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (batch->fd < 0)
        fatal(step);
}

/* Adds bytes padded to four; the length of the current message follows. */
static void put(struct batch *batch, const void *data, size_t size)
{
    size_t padded = (size + 3) & ~(size_t)3;
    if (padded > sizeof batch->bytes - batch->length)
        fatal_because(batch->step, "batch too long", EXIT_LAUNCH_FAILED);
    memset(batch->bytes + batch->length, 0, padded);
    if (size)
        memcpy(batch->bytes + batch->length, data, size);
    batch->length += padded;
    uint32_t length = (uint32_t)(batch->length - batch->message);
    memcpy(batch->bytes + batch->message, &length, sizeof length);
}

void batch_message(struct batch *batch, unsigned type, unsigned flags, bool answered, const void *head,
                   size_t size)
{
    struct nlmsghdr message = {
        .nlmsg_type = (uint16_t)type,
        .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags | (answered ? NLM_F_ACK : 0)),
        .nlmsg_seq = batch->unanswered + 1,
    };
    batch->message = batch->length;
    put(batch, &message, sizeof message);
    put(batch, head, size);
    batch->unanswered += answered;
}

void batch_attribute(struct batch *batch, unsigned type, const void *data, size_t size)
{
    struct nlattr attribute = {.nla_len = (uint16_t)(sizeof(struct nlattr) + size), .nla_type = (uint16_t)type};
    put(batch, &attribute, sizeof attribute);
    put(batch, data, size);
}

void batch_string(struct batch *batch, unsigned type, const char *text)
{
    batch_attribute(batch, type, text, strlen(text) + 1);
}

void batch_be32(struct batch *batch, unsigned type, uint32_t number)
{
    number = htonl(number);
    batch_attribute(batch, type, &number, sizeof number);
}

size_t batch_nest(struct batch *batch, unsigned type)
{
    size_t nest = batch->length;
    batch_attribute(batch, type | NLA_F_NESTED, NULL, 0);
    return nest;
}

void batch_nest_end(struct batch *batch, size_t nest)
{
    uint16_t length = (uint16_t)(batch->length - nest);
    memcpy(batch->bytes + nest, &length, sizeof length);
}

static void check_answers(struct batch *batch, uint8_t *bytes, size_t left)
{
    struct nlmsghdr *message = (struct nlmsghdr *)(void *)bytes;
    for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
        if (message->nlmsg_type != NLMSG_ERROR)
            continue;
        const struct nlmsgerr *answer = NLMSG_DATA(message);
        errno = -answer->error;
        if (answer->error)
            fatal(batch->step);
        batch->unanswered--;
    }
}

void batch_commit(struct batch *batch)
{
    _Alignas(8) uint8_t answers[8192];
    if (send(batch->fd, batch->bytes, batch->length, 0) < 0)
        fatal(batch->step);
    while (batch->unanswered) {
        ssize_t got = recv(batch->fd, answers, sizeof answers, 0);
        if (got <= 0)
            fatal(batch->step);
        check_answers(batch, answers, (size_t)got);
    }
    close(batch->fd);
}
