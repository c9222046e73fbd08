#define _GNU_SOURCE
#include "egress.h"

#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

struct head {
    char magic[4];
    uint8_t kind, family;
    uint16_t port; /* network order */
    uint8_t address[16];
};

_Static_assert(sizeof(struct head) == 24, "the head has no padding");

static struct sockaddr_un exit_address = {.sun_family = AF_UNIX};
static int door = -1;

void egress_open(int socket)
{
    /* Through the descriptor: the socket has no path inside. An empty path connects to nothing. */
    if (socket >= 0)
        snprintf(exit_address.sun_path, sizeof exit_address.sun_path, "/proc/self/fd/%d", socket);
}

void egress_open_door(int socket)
{
    door = socket;
}

static void fill_head(struct head *head, enum flow_kind kind, const struct sockaddr_storage *destination)
{
    memset(head, 0, sizeof *head);
    memcpy(head->magic, "HWX1", sizeof head->magic);
    head->kind = (uint8_t)kind;
    if (destination->ss_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, destination, sizeof four);
        head->family = 4;
        head->port = four.sin_port;
        memcpy(head->address, &four.sin_addr, sizeof four.sin_addr);
    } else {
        struct sockaddr_in6 six;
        memcpy(&six, destination, sizeof six);
        head->family = 6;
        head->port = six.sin6_port;
        memcpy(head->address, &six.sin6_addr, sizeof six.sin6_addr);
    }
}

int egress_reach(void)
{
    if (!*exit_address.sun_path) {
        errno = ECONNREFUSED;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || !connect(fd, (struct sockaddr *)&exit_address, sizeof exit_address))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int egress_connect(enum flow_kind kind, const struct sockaddr_storage *destination)
{
    struct head head;
    int fd = door >= 0 ? door_ask(door) : egress_reach();
    if (fd < 0)
        return -1;
    fill_head(&head, kind, destination);
    if (send(fd, &head, sizeof head, MSG_NOSIGNAL) == sizeof head)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}
