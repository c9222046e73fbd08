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
#define FIRST_MARK ((uint64_t)1 << 62)
static uint64_t next_mark = FIRST_MARK;

static int resource = RLIMIT_LOCKS;

int tree_resource(void)
{
    return resource;
}

void tree_mark_by_resident_limit(void)
{
    resource = RLIMIT_RSS;
}

static bool in_gvisor(void)
{
    return resource == RLIMIT_RSS;
}

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
    return !syscall(SYS_setrlimit, resource, &limit, tree_cookie());
}

/* A process that has ended and was not waited for still shows its limits. */
static bool has_ended(int proc, const char *pid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "%s/stat", pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    /* The state follows the name, which stands in parentheses and may hold some itself. */
    const char *state = strrchr(text, ')');
    return !state || !strncmp(state, ") Z", 3) || !strncmp(state, ") X", 3);
}

/* The same by asking, where no file tells. */
static uint64_t asked_mark_of(int proc, const char *pid)
{
    struct rlimit limit;
    if (syscall(SYS_prlimit64, atoi(pid), resource, NULL, &limit) || has_ended(proc, pid))
        return 0;
    return limit.rlim_max;
}

/* The hard limit in the line `Max file locks  SOFT  HARD  locks` of /proc/PID/limits; 0: not to be had. */
static uint64_t mark_of(int proc, const char *pid)
{
    static const char label[] = "Max file locks";
    char path[64], text[LIMITS_BYTES];
    if (in_gvisor())
        return asked_mark_of(proc, pid);
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

uint64_t tree_of(pid_t pid)
{
    char name[16];
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(name, sizeof name, "%d", pid);
    uint64_t mark = proc < 0 ? 0 : mark_of(proc, name);
    if (proc >= 0)
        close(proc);
    return mark && mark < FIRST_MARK ? FIRST_MARK - mark : 0;
}

/* Returns how many there were. */
static unsigned signal_all(uint64_t mark, int number)
{
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return 0;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (!*end && pid > 1 && mark_of(dirfd(proc), entry->d_name) == mark)
            count += !kill((pid_t)pid, number);
    }
    closedir(proc);
    return count;
}

void tree_signal(uint64_t mark, int number)
{
    signal_all(mark, number);
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

/*
 * gVisor does not tell the newest pid. So all are stopped first, and the passes end when two have found nobody:
 * whoever was born of one that stopped or died meanwhile is found by the next.
 */
static void kill_without_counting(uint64_t mark)
{
    unsigned empty = 0;
    for (int pass = 0; pass < FROZEN_PASSES_MAX && empty < 2; pass++) {
        kill(-1, SIGSTOP);
        empty = signal_all(mark, SIGKILL) ? 0 : empty + 1;
    }
    kill(-1, SIGCONT);
}

void tree_kill(uint64_t mark)
{
    if (in_gvisor()) {
        kill_without_counting(mark);
        return;
    }
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
