#define _GNU_SOURCE
#include "tree.h"

#include "fatal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PASSES_MAX = 64, LIMITS_BYTES = 4096 };

/* Marks count down: limits can be lowered only, so no mark could be turned into that of an older EXEC. */
static uint64_t next_mark = (uint64_t)1 << 62;

uint64_t tree_cookie(void)
{
    static uint64_t cookie;
    while (!cookie)
        if (getrandom(&cookie, sizeof cookie, 0) != sizeof cookie)
            fatal("getrandom");
    return cookie;
}

uint64_t tree_new_mark(void)
{
    return --next_mark;
}

bool tree_mark_self(uint64_t mark)
{
    struct rlimit limit = {mark, mark};
    return !syscall(SYS_setrlimit, RLIMIT_LOCKS, &limit, tree_cookie());
}

/* The hard limit in the line `Max file locks  SOFT  HARD  locks` of /proc/PID/limits; 0: not to be had. */
static uint64_t mark_of(int proc, const char *pid)
{
    static const char label[] = "Max file locks";
    char path[64], text[LIMITS_BYTES];
    snprintf(path, sizeof path, "%s/limits", pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    char *line = strstr(text, label);
    if (!line)
        return 0;
    char *hard = NULL;
    strtoull(line + sizeof label - 1, &hard, 10);
    return strtoull(hard, NULL, 10);
}

/* True for a process that runs no more: dead and not reaped, or stopped already. */
static bool is_still(int proc, const char *pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "%s/stat", pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return true;
    text[got] = 0;
    const char *state = strrchr(text, ')');
    return !state || state[1] == 0 || strchr("ZXTt", state[2]);
}

/* Signals every bearer of the mark; with `moving_only` those that still run. Returns how many. */
static unsigned signal_bearers(uint64_t mark, int number, bool moving_only)
{
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return 0;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end || pid <= 1 || mark_of(dirfd(proc), entry->d_name) != mark)
            continue;
        if (moving_only && is_still(dirfd(proc), entry->d_name))
            continue;
        kill((pid_t)pid, number);
        count++;
    }
    closedir(proc);
    return count;
}

void tree_signal(uint64_t mark, int number)
{
    signal_bearers(mark, number, false);
}

void tree_kill(uint64_t mark)
{
    /* Whoever is stopped cannot fork, so a pass that finds nobody moving has found everybody. */
    for (int pass = 0; pass < PASSES_MAX; pass++)
        if (!signal_bearers(mark, SIGSTOP, true))
            break;
    signal_bearers(mark, SIGKILL, false);
}
