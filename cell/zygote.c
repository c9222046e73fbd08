#define _GNU_SOURCE
#include "zygote.h"

#include "cage.h"
#include "fatal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum message { HELLO = 'H', FORK = 'F', FORKED = 'f', WATCH = 'W', UNWATCH = 'U', END = 'E', ENDED = 'e' };
enum cause { BY_ITSELF = 0, ON_DEMAND = 1, CPU = 2, WALL = 3 };

#define SECOND_NS 1000000000LL
/* What is longer than this, some 73 years, is so long: sums of it stay in their type. */
#define LONGEST_NS (INT64_MAX / 4)
/* A cell that is nearly at its limit is looked at no more often than this. */
#define LEAST_PAUSE_NS 200000LL
/* A cell that nobody watches has nothing to do: one that uses so much is ended. It is looked at once in so long. */
#define REST_CPU_NS 100000000LL
#define SWEEP_NS SECOND_NS

/* From the host: FORK (one descriptor comes along), WATCH, UNWATCH, END. */
struct request {
    uint32_t kind, cell;
    uint64_t cpu_ns, wall_ns;
};

/* To the host: HELLO (`value`: bits that hold), FORKED (`cell`; `value`: errno, 0 is success), ENDED. */
struct report {
    uint32_t kind, cell, cause, value;
    uint64_t cpu_ns;
};

struct cell {
    pid_t pid;       /* 0: the place is free */
    uint32_t number; /* the place, and above it how often it was taken: what is meant for a former cell meets none */
    uint32_t cause;
    bool watched;
    int64_t cpu_limit_ns, wall_limit_ns; /* on the clock of the process; on ours */
    int64_t rested_ns; /* what it had used when it was last left alone; -1: not looked at yet */
    uint32_t watch_place;
};

static struct cell cells[CELLS_MAX];
static uint32_t free_cells[CELLS_MAX], free_count;
static uint32_t watched[CELLS_MAX], watched_count;
static int64_t sweep_at_ns;
static const struct engine *the_engine;

static int64_t nanoseconds(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now))
        return -1;
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* What a process has used of the processors; -1 when it is gone. */
static int64_t used_ns(pid_t pid)
{
    clockid_t clock;
    return clock_getcpuclockid(pid, &clock) ? -1 : nanoseconds(clock);
}

static void tell(struct report report)
{
    if (send(CONTROL_SOCKET, &report, sizeof report, MSG_NOSIGNAL) != (ssize_t)sizeof report)
        _exit(0); /* the host is gone */
}

static void unwatch(struct cell *cell)
{
    if (!cell->watched)
        return;
    uint32_t last = watched[--watched_count];
    watched[cell->watch_place] = last;
    cells[last].watch_place = cell->watch_place;
    cell->watched = false;
}

static void leave_alone(struct cell *cell)
{
    unwatch(cell);
    cell->rested_ns = used_ns(cell->pid);
}

static int64_t bounded(uint64_t ns)
{
    return ns < LONGEST_NS ? (int64_t)ns : LONGEST_NS;
}

static void watch(struct cell *cell, const struct request *request)
{
    unwatch(cell);
    int64_t used = used_ns(cell->pid);
    if (used < 0)
        return;
    cell->cpu_limit_ns = used + bounded(request->cpu_ns);
    cell->wall_limit_ns = nanoseconds(CLOCK_MONOTONIC) + bounded(request->wall_ns);
    cell->watch_place = watched_count;
    cell->watched = true;
    watched[watched_count++] = (uint32_t)(cell - cells);
}

static void finish(struct cell *cell, enum cause cause)
{
    if (!cell->cause)
        cell->cause = cause;
    kill(cell->pid, SIGKILL);
    unwatch(cell);
}

static void report_end(struct cell *cell, int status, const struct rusage *usage)
{
    struct report report = {.kind = ENDED, .cell = cell->number, .cause = cell->cause};
    report.value = (uint32_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    report.cpu_ns = (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * (uint64_t)SECOND_NS +
                    (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1000;
    unwatch(cell);
    cell->pid = 0;
    free_cells[free_count++] = (uint32_t)(cell - cells);
    tell(report);
}

static void reap(void)
{
    int status;
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        for (struct cell *cell = cells; cell < cells + CELLS_MAX; cell++)
            if (cell->pid == pid) {
                report_end(cell, status, &usage);
                break;
            }
}

static _Noreturn void live(int socket)
{
    sigset_t none;
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || sigprocmask(SIG_SETMASK, &none, NULL))
        _exit(EXIT_START_FAILED);
    cage_take(socket);
    the_engine->born();
    cage_cell();
    the_engine->serve();
    _exit(0);
}

static void fork_one(int socket)
{
    struct report report = {.kind = FORKED, .value = EAGAIN};
    if (free_count) {
        uint32_t index = free_cells[free_count - 1];
        pid_t pid = fork();
        if (pid == 0)
            live(socket);
        report.value = pid < 0 ? (uint32_t)errno : 0;
        if (pid > 0) {
            free_count--;
            cells[index] = (struct cell){.pid = pid, .number = cells[index].number + CELLS_MAX, .rested_ns = -1};
            report.cell = cells[index].number;
        }
    }
    tell(report);
}

/* Returns the descriptor that came along, or -1. */
static int receive(struct request *request)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } room;
    struct iovec part = {request, sizeof *request};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes,
                             .msg_controllen = sizeof room.bytes};
    ssize_t got = recvmsg(CONTROL_SOCKET, &message, MSG_CMSG_CLOEXEC);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
        _exit(0);
    if (got < 0) {
        request->kind = 0;
        return -1;
    }
    if (got != (ssize_t)sizeof *request)
        fatal_because("control", "a message of another size", EXIT_BAD_USAGE);
    struct cmsghdr *with = CMSG_FIRSTHDR(&message);
    if (!with || with->cmsg_type != SCM_RIGHTS || with->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(with), sizeof descriptor);
    return descriptor;
}

static void obey(void)
{
    struct request request;
    int descriptor = receive(&request);
    struct cell *cell = &cells[request.cell % CELLS_MAX];
    bool known = cell->pid && cell->number == request.cell;
    if (request.kind == FORK && descriptor >= 0)
        fork_one(descriptor);
    else if (request.kind == WATCH && known)
        watch(cell, &request);
    else if (request.kind == UNWATCH && known)
        leave_alone(cell);
    else if (request.kind == END && known)
        finish(cell, ON_DEMAND);
    if (descriptor >= 0)
        close(descriptor);
}

/* Ends whoever computes though nothing was asked of it: code may have said that it is done, and go on. */
static void sweep(void)
{
    for (struct cell *cell = cells; cell < cells + CELLS_MAX; cell++) {
        if (!cell->pid || cell->watched || cell->cause)
            continue;
        int64_t used = used_ns(cell->pid);
        if (cell->rested_ns < 0)
            cell->rested_ns = used;
        else if (used - cell->rested_ns > REST_CPU_NS)
            finish(cell, CPU);
    }
}

/* Ends whoever is over a limit; returns in how many nanoseconds somebody may be, -1 for nobody. */
static int64_t enforce(void)
{
    int64_t now = nanoseconds(CLOCK_MONOTONIC), next = -1;
    if (now >= sweep_at_ns) {
        sweep();
        sweep_at_ns = now + SWEEP_NS;
    }
    if (free_count < CELLS_MAX)
        next = sweep_at_ns - now;
    for (uint32_t i = watched_count; i-- > 0;) {
        struct cell *cell = &cells[watched[i]];
        int64_t used = used_ns(cell->pid), cpu_left = cell->cpu_limit_ns - used;
        int64_t wall_left = cell->wall_limit_ns - now;
        if (used >= 0 && cpu_left > 0 && wall_left > 0) {
            int64_t left = cpu_left < wall_left ? cpu_left : wall_left;
            if (next < 0 || left < next)
                next = left;
        } else {
            finish(cell, used >= 0 && cpu_left <= 0 ? CPU : WALL);
        }
    }
    return next >= 0 && next < LEAST_PAUSE_NS ? LEAST_PAUSE_NS : next;
}

_Noreturn void zygote_serve(const struct engine *engine, unsigned holds)
{
    the_engine = engine;
    while (free_count < CELLS_MAX) {
        uint32_t place = CELLS_MAX - 1 - free_count;
        cells[place].number = place;
        free_cells[free_count++] = place;
    }
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &child, NULL) || prctl(PR_SET_TIMERSLACK, 1UL))
        fatal("signals");
    int deaths = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (deaths < 0)
        fatal("signalfd");
    tell((struct report){.kind = HELLO, .value = holds});
    struct pollfd polled[] = {{.fd = CONTROL_SOCKET, .events = POLLIN}, {.fd = deaths, .events = POLLIN}};
    for (;;) {
        int64_t pause = enforce();
        struct timespec wait = {pause / SECOND_NS, pause % SECOND_NS};
        if (ppoll(polled, 2, pause < 0 ? NULL : &wait, NULL) < 0 && errno != EINTR)
            fatal("poll");
        struct signalfd_siginfo taken[8];
        if (polled[1].revents && read(deaths, taken, sizeof taken) != 0)
            reap();
        if (polled[0].revents)
            obey();
    }
}
