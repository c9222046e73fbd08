#define _GNU_SOURCE
#include "claim.h"

#include "fatal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* On the channel, with the descriptor of the exit's socket; of a fixed size, so that nothing after it is taken. */
struct message {
    char magic[4];
    char hostname[CLAIM_NAME_BYTES]; /* padded with zeros */
};

_Static_assert(sizeof(struct message) == 68, "the message has no padding");

static const char magic[4] = "HWC1";

void claim_by_options(struct claim *claim, const char *hostname, int exit_socket)
{
    if (strlen(hostname) > CLAIM_NAME_BYTES)
        fatal_because("--hostname", "too long", EXIT_BAD_USAGE);
    strcpy(claim->hostname, hostname);
    claim->exit_socket = exit_socket;
}

void claim_say_ready(int channel)
{
    if (send(channel, "\1", 1, MSG_NOSIGNAL) != 1)
        _exit(EXIT_LAUNCH_FAILED); /* nobody is there to claim it */
}

/* A descriptor, if one comes, stands in *fd. */
static void receive(int socket, struct message *message, int *fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } rights;
    struct iovec whole = {message, sizeof *message};
    struct msghdr told = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    ssize_t got;
    do
        got = recvmsg(socket, &told, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    while (got < 0 && errno == EINTR);
    if (got == 0 || (got < 0 && errno == ECONNRESET))
        _exit(0); /* not claimed: there is no use for it any more */
    if (got != sizeof *message || memcmp(message->magic, magic, sizeof magic))
        fatal_because("claim", "not one", EXIT_LAUNCH_FAILED);
    struct cmsghdr *found = CMSG_FIRSTHDR(&told);
    *fd = -1;
    if (found && found->cmsg_level == SOL_SOCKET && found->cmsg_type == SCM_RIGHTS &&
        found->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(found), sizeof *fd);
}

void claim_await(int socket, struct claim *claim)
{
    struct message message;
    receive(socket, &message, &claim->exit_socket);
    memcpy(claim->hostname, message.hostname, CLAIM_NAME_BYTES);
    claim->hostname[CLAIM_NAME_BYTES] = 0;
}

/* With a descriptor beside it unless that is -1. */
static bool give(int socket, const struct claim *claim, int fd)
{
    struct message message;
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } rights = {.head = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec whole = {&message, sizeof message};
    struct msghdr told = {.msg_iov = &whole, .msg_iovlen = 1};
    memcpy(message.magic, magic, sizeof magic);
    memcpy(message.hostname, claim->hostname, CLAIM_NAME_BYTES);
    if (fd >= 0) {
        memcpy(CMSG_DATA(&rights.head), &fd, sizeof fd);
        told.msg_control = &rights;
        told.msg_controllen = sizeof rights;
    }
    return sendmsg(socket, &told, MSG_NOSIGNAL) == sizeof message;
}

bool claim_pass(int door, const struct claim *claim)
{
    return give(door, claim, -1);
}

bool claim_give(int channel, const struct claim *claim)
{
    return give(channel, claim, claim->exit_socket);
}

void claim_take_name(const struct claim *claim)
{
    if (sethostname(claim->hostname, strlen(claim->hostname)))
        fatal("hostname");
}
