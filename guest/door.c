#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor beside one byte. */
union rights {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static int descriptor_of(struct msghdr *message)
{
    int fd = -1;
    struct cmsghdr *rights = CMSG_FIRSTHDR(message);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
        rights->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    return fd;
}

static ssize_t receive(int door, uint8_t *byte, int *fd)
{
    union rights rights;
    struct iovec answer = {byte, 1};
    struct msghdr message = {
        .msg_iov = &answer, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    ssize_t got;
    do
        got = recvmsg(door, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    *fd = got == 1 ? descriptor_of(&message) : -1;
    return got;
}

int door_ask(int door)
{
    uint8_t error = 0;
    int fd = -1;
    if (send(door, "", 1, MSG_NOSIGNAL) != 1 || receive(door, &error, &fd) != 1) {
        errno = ECONNREFUSED;
        return -1;
    }
    if (fd < 0) {
        errno = error ? error : ECONNREFUSED;
        return -1;
    }
    if (!fcntl(fd, F_SETFL, O_NONBLOCK))
        return fd;
    close(fd);
    return -1;
}

static bool send_answer(int door, uint8_t byte, int fd)
{
    union rights rights;
    struct iovec answer = {&byte, 1};
    struct msghdr message = {.msg_iov = &answer, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&rights, 0, sizeof rights);
        message.msg_control = &rights;
        message.msg_controllen = sizeof rights;
        rights.head = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&rights.head), &fd, sizeof fd);
    }
    return sendmsg(door, &message, MSG_NOSIGNAL) == 1;
}

bool door_answer(int door, int fd)
{
    uint8_t error = fd < 0 ? (uint8_t)errno : 0;
    bool answered = send_answer(door, error, fd);
    if (fd >= 0)
        close(fd);
    return answered;
}
