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

enum { PASSES_MAX = 16, FROZEN_PASSES_MAX = 64, LIMITS_BYTES = 4096 };

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

void tree_signal(uint64_t mark, int number)
{
    DIR *proc = opendir("/proc");
    if (!proc)
        return;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (!*end && pid > 1 && mark_of(dirfd(proc), entry->d_name) == mark)
            kill((pid_t)pid, number);
    }
    closedir(proc);
}

/* The pid that was given out last in the sandbox: the last word of /proc/loadavg. */
static long newest_pid(void)
{
    char text[128];
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *last = strrchr(text, ' ');
    return last ? strtol(last, NULL, 10) : -1;
}

/* Whoever has been killed forks no more; so a pass during which nobody was born has missed nobody. */
static bool kill_all_seen(uint64_t mark)
{
    long before = newest_pid();
    tree_signal(mark, SIGKILL);
    return before != -1 && newest_pid() == before;
}

void tree_kill(uint64_t mark)
{
    for (int pass = 0; pass < PASSES_MAX; pass++)
        if (kill_all_seen(mark))
            return;
    /* Somebody forks faster than we look. All at once can be stopped only with the whole sandbox. */
    bool done = false;
    for (int pass = 0; pass < FROZEN_PASSES_MAX && !done; pass++) {
        kill(-1, SIGSTOP);
        done = kill_all_seen(mark);
    }
    kill(-1, SIGCONT);
}
