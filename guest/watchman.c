#define _GNU_SOURCE
#include "watchman.h"

#include "fatal.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_MS = 1000,    /* many sandboxes are gone by then, and one that wakes over its limit is stopped soon */
    QUICK_MS = 1000,    /* between two looks at the file system while something is written on it, */
    SLOW_MS = 4000,     /* and while nothing is */
    SELDOM_MS = 30000,  /* somebody else may delete as much as is written here */
    REST_TIMES = 10,    /* so many times what counting took nobody counts */
    ROOM_PARTS = 4,     /* when so much of the room that was left may be gone, it is counted again */
    FILES_A_MIB = 64,   /* as many as mkfs gives a disk of that size */
    COUNT_MS = 300000,  /* a count that takes longer is given up */
    RETRY_MS = 60000,   /* at most, after one that failed */
    FAILURES_MAX = 8,   /* in a row; what cannot be counted may not go on, */
    FAILING_MS = 900000, /* nor be tried for longer, as long as each of them takes */
    NICE = 5,           /* little hurry, but its turn: who is never let run finds nothing. REST_TIMES bounds its share */
    DISK_PRIORITY = 2 << 13 | 7, /* ioprio_set(2): best effort, the last of it */
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As many directories as may be open at once; where that is not allowed, what is nested as deep is not seen. */
static void open_many(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return;
    files.rlim_cur = files.rlim_max < WEIGH_FILES ? files.rlim_max : WEIGH_FILES;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* A process of its own, without hurry. As an ordinary user it becomes root of what is its user's: a guest may have
 * closed its directories to that one. */
static _Noreturn void count(const struct watchman *watchman, int answers)
{
    struct answer answer = {.mark = ANSWERED, .seen = true};
    /* What fails is an answer too: only one reason is told of why a sandbox ended, its last. */
    dup2(answers, STDERR_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGTERM, SIG_DFL);
    if (nice(NICE) < 0)
        errno = 0; /* as it is, then */
    syscall(SYS_ioprio_set, 1, 0, DISK_PRIORITY);
    open_many();
    if (geteuid())
        users_enter(0);
    for (int i = 0; i < WATCHED_PLACES && answer.seen; i++) {
        int place = openat(watchman->places[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        answer.seen = place >= 0 && weigh(place, &watchman->most, &answer.found);
    }
    _exit(write(answers, &answer, sizeof answer) != sizeof answer);
}

/* Tried again later, but not for ever: a guest that keeps itself from being counted has no limit. */
static void fail(struct watchman *watchman)
{
    if (!watchman->failures++)
        watchman->failing_ms = watchman->began_ms;
    if (watchman->failures < FAILURES_MAX && now_ms() - watchman->failing_ms < FAILING_MS)
        return;
    const char *reason = watchman->reason;
    dprintf(STDERR_FILENO, "handiwork-guest: disk: its files cannot be counted in time%s%s\n", *reason ? ": " : "",
            reason);
    kill(watchman->agent, SIGKILL);
}

static bool try_counting(struct watchman *watchman)
{
    int ends[2];
    watchman->began_ms = watchman->ended_ms = now_ms();
    watchman->reason[0] = 0;
    if (pipe2(ends, O_CLOEXEC))
        return false;
    fstatvfs(watchman->places[0], &watchman->system);
    pid_t pid = fork();
    if (!pid)
        count(watchman, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return false;
    }
    watchman->counter = pid;
    watchman->answers = ends[0];
    return true;
}

/* Keeps the one line by which the counter said why it failed, without our name in front. */
static void keep_reason(struct watchman *watchman, const char *said)
{
    static const char name[] = "handiwork-guest: ";
    if (!strncmp(said, name, sizeof name - 1))
        said += sizeof name - 1;
    snprintf(watchman->reason, sizeof watchman->reason, "%.*s", (int)strcspn(said, "\n"), said);
}

/* False when it did not count. It ends now, whatever it does: nobody waits for a count that goes on. */
static bool end_counting(struct watchman *watchman)
{
    char said[REASON_BYTES] = "";
    kill(watchman->counter, SIGKILL);
    ssize_t size = read(watchman->answers, said, sizeof said - 1);
    bool answered = size == sizeof watchman->answer && said[0] == ANSWERED;
    if (answered)
        memcpy(&watchman->answer, said, sizeof watchman->answer);
    else if (size > 0)
        keep_reason(watchman, said);
    close(watchman->answers);
    watchman->answers = -1;
    while (waitpid(watchman->counter, NULL, 0) < 0 && errno == EINTR)
        continue;
    watchman->counter = 0;
    watchman->ended_ms = now_ms();
    return answered;
}

static void judge(struct watchman *watchman)
{
    const struct weight *most = &watchman->most, *found = &watchman->answer.found;
    if (!end_counting(watchman)) {
        fail(watchman);
        return;
    }
    watchman->failures = 0;
    watchman->counted = true;
    watchman->found = *found;
    if (watchman->answer.seen && !weight_is_over(found, most))
        return;
    if (!watchman->answer.seen)
        dprintf(STDERR_FILENO, "handiwork-guest: disk: its files cannot be counted: directories are nested too deep\n");
    else
        dprintf(STDERR_FILENO, "handiwork-guest: disk: its files take more than %llu MiB, or are more than %llu\n",
                (unsigned long long)most->bytes >> 20, (unsigned long long)most->files);
    kill(watchman->agent, SIGKILL);
}

/* Whether as much is gone from the whole file system as would be a good part of what was left of the limit. */
static bool may_have_grown(const struct watchman *watchman, const struct statvfs *now)
{
    const struct statvfs *then = &watchman->system;
    uint64_t bytes = then->f_bfree > now->f_bfree ? (then->f_bfree - now->f_bfree) * now->f_frsize : 0;
    uint64_t files = then->f_ffree > now->f_ffree ? then->f_ffree - now->f_ffree : 0;
    return bytes > (watchman->most.bytes - watchman->found.bytes) / ROOM_PARTS ||
           files > (watchman->most.files - watchman->found.files) / ROOM_PARTS;
}

static bool is_due(struct watchman *watchman)
{
    struct statvfs now;
    int64_t rested = now_ms() - watchman->ended_ms, took = watchman->ended_ms - watchman->began_ms;
    int64_t rest = took * REST_TIMES;
    if (watchman->failures && rest > RETRY_MS)
        rest = RETRY_MS;
    if (fstatvfs(watchman->places[0], &now))
        return false;
    watchman->pause_ms = now.f_bfree < watchman->free_blocks ? QUICK_MS
                         : watchman->pause_ms < SLOW_MS      ? watchman->pause_ms * 2
                                                             : SLOW_MS;
    watchman->free_blocks = now.f_bfree;
    if (!watchman->counted)
        return true;
    return rested >= rest && (rested >= SELDOM_MS || may_have_grown(watchman, &now));
}

static void open_places(struct watchman *watchman, const char *state)
{
    static const char *const names[WATCHED_PLACES] = {"upper", "work"};
    for (int i = 0; i < WATCHED_PLACES; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", state, names[i]) < 0)
            fatal("disk watch");
        watchman->places[i] = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (watchman->places[i] < 0)
            fatal(path);
        free(path);
    }
}

void watchman_open(struct watchman *watchman, const struct options *options, int agent)
{
    *watchman = (struct watchman){
        .agent = agent,
        .pidfd = (int)syscall(SYS_pidfd_open, agent, 0),
        .most = {(uint64_t)options->watched_mib << 20, (uint64_t)options->watched_mib * FILES_A_MIB},
        .pause_ms = FIRST_MS,
        .answers = -1,
    };
    if (watchman->pidfd < 0)
        fatal("disk watch");
    open_places(watchman, options->state);
}

/* Until something is to be done, at most. */
static int wait_ms(const struct watchman *watchman)
{
    int64_t left = watchman->began_ms + COUNT_MS - now_ms();
    return !watchman->counter ? watchman->pause_ms : left > 0 ? (int)left : 0;
}

void watchman_stay(struct watchman *watchman)
{
    for (;;) {
        struct pollfd events[] = {{.fd = watchman->pidfd, .events = POLLIN},
                                  {.fd = watchman->answers, .events = POLLIN}};
        int ready = poll(events, 2, wait_ms(watchman));
        if (events[0].revents)
            break;
        if (watchman->counter && (!ready || events[1].revents))
            judge(watchman); /* what is late has not answered */
        else if (!ready && is_due(watchman) && !try_counting(watchman))
            fail(watchman);
    }
    if (watchman->counter)
        end_counting(watchman);
}
