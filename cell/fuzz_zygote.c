/*
 * libFuzzer target: whatever the host asks, in whatever order, and however cells end, each fork and each end is told
 * once, signals go to cells that live and to nobody else, and the tables of cells stay whole. The kernel is made up.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static ssize_t fuzz_send(int socket, const void *message, size_t bytes, int flags);
static ssize_t fuzz_recvmsg(int socket, struct msghdr *message, int flags);
static pid_t fuzz_fork(void);
static int fuzz_kill(pid_t pid, int signal);
static pid_t fuzz_wait4(pid_t pid, int *status, int options, struct rusage *usage);
static int fuzz_getcpuclockid(pid_t pid, clockid_t *clock);
static int fuzz_gettime(clockid_t clock, struct timespec *now);
static int fuzz_close(int descriptor);
static _Noreturn void fuzz_exit(int code);

#define send fuzz_send
#define recvmsg fuzz_recvmsg
#define fork fuzz_fork
#define kill fuzz_kill
#define wait4 fuzz_wait4
#define clock_getcpuclockid fuzz_getcpuclockid
#define clock_gettime fuzz_gettime
#define close fuzz_close
#define _exit fuzz_exit
#include "zygote.c"
#undef send
#undef recvmsg
#undef fork
#undef kill
#undef wait4
#undef clock_getcpuclockid
#undef clock_gettime
#undef close
#undef _exit

enum { FIRST_PID = 100, PIDS = 256, DESCRIPTOR = 7, STEP_BYTES = 26 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* The processes there are, by pid less FIRST_PID. */
static struct {
    bool lives, killed;
    int64_t used;
} processes[PIDS];
static unsigned started, forks_told, ends_told, forks_asked, forks_made;
static int64_t now_ns;
static bool fork_fails, open_descriptor;
static const uint8_t *step;
static size_t step_bytes;
static uint32_t numbers[PIDS]; /* of the cells that were told to be, newest last */
static unsigned number_count;
static jmp_buf ended;

static void check(bool holds)
{
    if (!holds)
        abort();
}

_Noreturn void fatal(const char *what)
{
    (void)what;
    abort();
}

_Noreturn void fatal_because(const char *what, const char *why, int code)
{
    check(!strcmp(what, "control") && why && code);
    longjmp(ended, 1);
}

void cage_take(int socket)
{
    (void)socket;
    abort(); /* no process is a cell here */
}

void cage_cell(void)
{
    abort();
}

static ssize_t fuzz_send(int socket, const void *message, size_t bytes, int flags)
{
    struct report report;
    check(socket == CONTROL_SOCKET && bytes == sizeof report && flags == MSG_NOSIGNAL);
    memcpy(&report, message, sizeof report);
    if (report.kind == FORKED) {
        forks_told++;
        check(report.value ? report.value == EAGAIN : cells[report.cell % CELLS_MAX].number == report.cell);
        if (!report.value && number_count < PIDS)
            numbers[number_count++] = report.cell;
    } else {
        check(report.kind == ENDED && report.cause <= WALL);
        ends_told++;
    }
    return (ssize_t)bytes;
}

static ssize_t fuzz_recvmsg(int socket, struct msghdr *message, int flags)
{
    check(socket == CONTROL_SOCKET && flags == MSG_CMSG_CLOEXEC);
    memcpy(message->msg_iov->iov_base, step + 2, step_bytes - 2);
    if (step[0] & 1) {
        struct cmsghdr *with = CMSG_FIRSTHDR(message);
        int descriptor = DESCRIPTOR;
        with->cmsg_level = SOL_SOCKET;
        with->cmsg_type = SCM_RIGHTS;
        with->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(with), &descriptor, sizeof descriptor);
        open_descriptor = true;
    } else {
        message->msg_controllen = 0;
    }
    return (ssize_t)step_bytes - 2;
}

static pid_t fuzz_fork(void)
{
    if (fork_fails || started == PIDS) {
        errno = EAGAIN;
        return -1;
    }
    processes[started].lives = true;
    forks_made++;
    return (pid_t)(FIRST_PID + started++);
}

static bool is_process(pid_t pid)
{
    return pid >= FIRST_PID && pid < FIRST_PID + (pid_t)started;
}

static int fuzz_kill(pid_t pid, int signal)
{
    check(signal == SIGKILL && is_process(pid) && processes[pid - FIRST_PID].lives);
    processes[pid - FIRST_PID].killed = true;
    return 0;
}

/* Those that were killed end, and of the others one that the step names. */
static pid_t fuzz_wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    check(pid == -1 && options == WNOHANG);
    for (unsigned i = 0; i < started; i++)
        if (processes[i].lives && (processes[i].killed || step[1] == i)) {
            processes[i].lives = false;
            *status = processes[i].killed ? SIGKILL : step[2] << 8;
            *usage = (struct rusage){.ru_utime.tv_sec = step[3]};
            return (pid_t)(FIRST_PID + i);
        }
    return 0;
}

static int fuzz_getcpuclockid(pid_t pid, clockid_t *clock)
{
    check(is_process(pid));
    *clock = (clockid_t)pid;
    return !processes[pid - FIRST_PID].lives;
}

static int fuzz_gettime(clockid_t clock, struct timespec *now)
{
    int64_t told = clock == CLOCK_MONOTONIC ? now_ns : processes[clock - FIRST_PID].used;
    *now = (struct timespec){told / SECOND_NS, told % SECOND_NS};
    return 0;
}

static int fuzz_close(int descriptor)
{
    check(descriptor == DESCRIPTOR && open_descriptor);
    open_descriptor = false;
    return 0;
}

static _Noreturn void fuzz_exit(int code)
{
    check(code == 0);
    longjmp(ended, 1);
}

static void check_tables(void)
{
    unsigned alive = 0, under_watch = 0;
    for (uint32_t i = 0; i < PIDS; i++) { /* no further place is ever taken */
        check(cells[i].number % CELLS_MAX == i);
        alive += cells[i].pid != 0;
        under_watch += cells[i].watched;
        check(!cells[i].watched || (cells[i].pid && watched[cells[i].watch_place] == i));
    }
    check(free_count + alive == CELLS_MAX && watched_count == under_watch && !open_descriptor);
    check(forks_told == forks_asked && forks_made == alive + ends_told);
}

static void start_again(void)
{
    memset(cells, 0, PIDS * sizeof cells[0]);
    memset(processes, 0, sizeof processes);
    watched_count = started = forks_told = ends_told = forks_asked = forks_made = number_count = 0;
    now_ns = sweep_at_ns = SECOND_NS;
    open_descriptor = false;
    free_count = CELLS_MAX; /* the first places are the last in the list */
    for (uint32_t place = 0; place < PIDS; place++) {
        cells[place].number = place;
        free_cells[CELLS_MAX - 1 - place] = place;
    }
}

/* A request is for a cell that was told, or for the number in it; the third byte says which. */
static void ask(uint8_t *own)
{
    struct request request;
    memcpy(&request, own + 2, sizeof request);
    static const uint32_t kinds[] = {FORK, WATCH, UNWATCH, END};
    if (own[0] & 2)
        request.kind = kinds[own[0] >> 2 & 3];
    if (own[0] & 16 && number_count)
        request.cell = numbers[request.cell % number_count];
    memcpy(own + 2, &request, sizeof request);
    fork_fails = own[0] & 32;
    forks_asked += request.kind == FORK && own[0] & 1;
    obey();
}

/* Time passes for everybody, and for one process most of all. */
static void pass(const uint8_t *own)
{
    now_ns += own[2] * SECOND_NS / 16;
    processes[own[1] % PIDS].used += own[3] * SECOND_NS / 16;
    int64_t pause = enforce();
    check(pause >= -1 && (pause < 0) == (free_count == CELLS_MAX));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t own[STEP_BYTES];
    start_again();
    if (setjmp(ended))
        return 0;
    while (size >= 4) {
        step_bytes = size < STEP_BYTES ? size : STEP_BYTES;
        memcpy(own, bytes, step_bytes);
        step = own;
        if (own[0] >= 224) {
            reap();
            step_bytes = 4;
        } else if (own[0] >= 192) {
            pass(own);
            step_bytes = 4;
        } else if (step_bytes == STEP_BYTES || own[0] & 64) {
            ask(own);
        } else {
            break;
        }
        bytes += step_bytes;
        size -= step_bytes;
        check_tables();
    }
    return 0;
}
