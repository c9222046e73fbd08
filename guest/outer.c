#define _GNU_SOURCE
#include "outer.h"

#include "caps.h"
#include "door.h"
#include "egress.h"
#include "fatal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* runsc [FLAGS] --root=/run run --bundle=/bundle sandbox */
enum { ARGUMENTS_MAX = RUNSC_FLAGS_MAX + 8 };

struct outer {
    int door, children;
    int channel; /* -1: no claim is awaited any more */
    pid_t runsc;
};

static void become_runsc(const struct options *options, int channel, int door)
{
    static char *const no_environment[] = {NULL};
    const char *argv[ARGUMENTS_MAX];
    unsigned count = 0;
    argv[count++] = OUTER_RUNSC;
    argv[count++] = "--root=" OUTER_STATE;
    for (unsigned i = 0; i < options->runsc_flag_count; i++)
        argv[count++] = options->runsc_flags[i];
    argv[count++] = "run";
    argv[count++] = "--bundle=" OUTER_BUNDLE;
    argv[count++] = "sandbox";
    argv[count] = NULL;
    if (dup2(channel, STDIN_FILENO) < 0 || (door >= 0 && dup2(door, STDOUT_FILENO) < 0))
        fatal("runsc");
    sigset_t none;
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fatal("runsc");
    execve(OUTER_RUNSC, (char *const *)argv, no_environment);
    fatal("runsc");
}

/* Orphans of runsc end up here as well. True when runsc itself has ended. */
static bool reap(const struct outer *outer)
{
    struct signalfd_siginfo signals[8];
    bool over = false;
    pid_t pid;
    while (read(outer->children, signals, sizeof signals) > 0)
        continue;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        over = over || pid == outer->runsc;
    return over;
}

static bool answer(const struct outer *outer)
{
    char question;
    ssize_t got = recv(outer->door, &question, 1, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    return got == 1 && door_answer(outer->door, egress_reach());
}

static void take_claim(struct outer *outer, struct claim *claim)
{
    claim_await(outer->channel, claim);
    egress_open(claim->exit_socket);
    if (!claim_pass(outer->door, claim))
        _exit(EXIT_LAUNCH_FAILED);
    close(outer->channel);
    close(STDERR_FILENO);
    outer->channel = -1;
}

static _Noreturn void watch(struct outer *outer, struct claim *claim)
{
    for (;;) {
        struct pollfd polled[] = {{.fd = outer->children, .events = POLLIN},
                                  {.fd = outer->door, .events = POLLIN},
                                  {.fd = outer->channel, .events = POLLIN}};
        if (poll(polled, 3, -1) < 0 && errno != EINTR)
            _exit(EXIT_LAUNCH_FAILED);
        if (polled[2].revents)
            take_claim(outer, claim);
        if (polled[0].revents && reap(outer))
            _exit(0);
        /* A door that nobody will ask at again is left; only the end of runsc ends the sandbox. */
        if (polled[1].revents && !answer(outer))
            outer->door = -1;
    }
}

static int watch_children(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    int fd = sigprocmask(SIG_BLOCK, &child, NULL) ? -1 : signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        fatal("signals");
    return fd;
}

void outer_serve(const struct options *options, int channel, struct claim *claim)
{
    int ends[2] = {-1, -1};
    bool leaves = claim->exit_socket >= 0 || options->awaits_claim;
    struct outer outer = {.children = watch_children(), .channel = channel};
    claim_take_name(claim);
    if (leaves && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        fatal("door");
    outer.door = ends[0];
    outer.runsc = fork();
    if (outer.runsc < 0)
        fatal("fork");
    if (!outer.runsc)
        become_runsc(options, channel, ends[1]);
    if (!options->awaits_claim) {
        close(channel);
        close(STDERR_FILENO);
        outer.channel = -1;
    }
    if (leaves)
        close(ends[1]);
    egress_open(claim->exit_socket);
    caps_drop();
    watch(&outer, claim);
}
