#define _GNU_SOURCE
#include "clocks.h"

#include "fatal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* One second is left to what has happened before: nobody may have started before a clock's zero, which would be told
 * as an age of centuries. */
static long long back(const struct timespec *clock)
{
    return clock->tv_sec > 1 ? clock->tv_sec - 1 : 0;
}

static void write_offsets(void)
{
    struct timespec monotonic, boot;
    char text[96];
    if (clock_gettime(CLOCK_MONOTONIC, &monotonic) || clock_gettime(CLOCK_BOOTTIME, &boot))
        fatal("clocks");
    int size =
        snprintf(text, sizeof text, "monotonic -%lld 0\nboottime -%lld 0\n", back(&monotonic), back(&boot));
    int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, (size_t)size) != size)
        fatal("clock offsets");
    close(fd);
}

/* Else only children would be in it: kernels before 6.1 let nobody share memory with a child of another clock, which
 * every quick way of starting a program does; and what we tell of processes is by the clock they see. */
static void join(void)
{
    int fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWTIME))
        fatal("time namespace");
    close(fd);
}

/* Said by the operator, who so gets the host's clocks; whatever else is in the way is a fault. */
static bool forbidden;

void clocks_look(void)
{
    char limit[4] = "";
    int fd = open("/proc/sys/user/max_time_namespaces", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* a kernel that has none */
    forbidden = read(fd, limit, sizeof limit) == 2 && !memcmp(limit, "0\n", 2);
    close(fd);
}

bool clocks_are_forbidden(void)
{
    return forbidden;
}

void clocks_restart(void)
{
    if (forbidden)
        return;
    if (unshare(CLONE_NEWTIME)) {
        if (errno == ENOSPC)
            fatal_because("time namespace", "user.max_time_namespaces is reached: raise it", EXIT_LAUNCH_FAILED);
        if (errno != EINVAL)
            fatal("time namespace");
        return;
    }
    write_offsets();
    join();
}
