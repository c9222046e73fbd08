#define _GNU_SOURCE
#include "erofs.h"

#include "fatal.h"
#include "mounts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void configure(int context, unsigned command, const char *key, const char *value)
{
    if (syscall(SYS_fsconfig, context, command, key, value, 0))
        fatal("erofs");
}

/* Needs Linux 6.12 or later: before that the kernel takes block devices only. */
static int mount_file(const char *file)
{
    int context = (int)syscall(SYS_fsopen, "erofs", FSOPEN_CLOEXEC);
    if (context < 0)
        fatal("erofs");
    configure(context, FSCONFIG_SET_STRING, "source", file);
    /* Else the file's own pages are kept in memory beside those of the files in it; kernels that do not know
     * the option work all the same. */
    syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "directio", NULL, 0);
    configure(context, FSCONFIG_CMD_CREATE, NULL, NULL);
    unsigned attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    int mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    if (mount < 0)
        fatal("erofs");
    close(context);
    return mount;
}

static void send_descriptor(int channel, int descriptor)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof descriptor)];
    } control;
    struct iovec byte = {"", 1};
    struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(&control.head), &descriptor, sizeof descriptor);
    if (sendmsg(channel, &message, MSG_NOSIGNAL) != 1)
        fatal("channel");
}

int erofs_mount(const char *channel, const char *file)
{
    char *end;
    long number = strtol(channel, &end, 10);
    if (*end || number < 3 || number > INT_MAX)
        fatal_because("mount", "not an inherited socket above 2", EXIT_BAD_USAGE);
    send_descriptor((int)number, mount_file(file));
    return 0;
}
