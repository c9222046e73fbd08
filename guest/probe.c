#define _GNU_SOURCE
#include "probe.h"

#include "clocks.h"
#include "fatal.h"
#include "mounts.h"
#include "netns.h"
#include "seccomp.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REASON_BYTES = 256 };

/* Each runs in a process of its own and returns when it worked, else ends through fatal(). */
typedef void attempt(void);

static void try_userns(void)
{
    users_enter(0);
}

static void try_pidns(void)
{
    users_enter(CLONE_NEWPID);
    pid_t pid = fork();
    if (!pid)
        _exit(getpid() != 1);
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fatal("fork");
    if (status)
        fatal_because("pid", "not 1", EXIT_LAUNCH_FAILED);
}

/* A private tmpfs to try mounts in. */
static void enter_scratch(void)
{
    users_enter(CLONE_NEWNS);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", "/tmp", "tmpfs", 0, NULL) ||
        chdir("/tmp"))
        fatal("tmpfs");
}

static void try_overlay(void)
{
    static const char *const names[] = {"lower", "upper", "work", "merged"};
    enter_scratch();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mkdir(names[i], 0755))
            fatal(names[i]);
    if (mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work,userxattr"))
        fatal("mount");
}

static void try_nftables(void)
{
    users_enter(CLONE_NEWNET);
    netns_capture();
}

static void try_seccomp(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fatal("no_new_privs");
    seccomp_install();
    if (syscall(SYS_unshare, CLONE_NEWUSER) != -1 || errno != EPERM)
        fatal_because("filter", "does not hold", EXIT_LAUNCH_FAILED);
}

static void await_end_of_input(int fd)
{
    char byte;
    while (read(fd, &byte, 1) > 0)
        continue;
}

/* Maps a copy of the root mount through a namespace that a child holds open. */
static void try_idmap(void)
{
    int ready[2], hold[2];
    char path[64], byte;
    if (pipe(ready) || pipe(hold))
        fatal("pipe");
    pid_t pid = fork();
    if (!pid) {
        close(hold[1]);
        users_enter(0);
        if (write(ready[1], "", 1) == 1)
            await_end_of_input(hold[0]);
        _exit(0);
    }
    close(ready[1]);
    if (pid < 0 || read(ready[0], &byte, 1) != 1)
        fatal_because("idmap", "no user namespace", EXIT_LAUNCH_FAILED);
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    int users = open(path, O_RDONLY | O_CLOEXEC);
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)users};
    if (users < 0 || tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr))
        fatal("mount_setattr");
}

/* Reported for the operator's sake: without it a sandbox is told how long the host has been up. */
static void try_timens(void)
{
    struct timespec up;
    clocks_look();
    if (clocks_are_forbidden())
        fatal_because("time namespace", "user.max_time_namespaces is 0", EXIT_LAUNCH_FAILED);
    users_enter(0);
    clocks_restart();
    if (clock_gettime(CLOCK_BOOTTIME, &up) || up.tv_sec > 2)
        fatal_because("time namespace", "the kernel has none", EXIT_LAUNCH_FAILED);
}

/* Runs one attempt in a child whose stderr is the reason. */
static bool report(const char *name, attempt *try)
{
    char reason[REASON_BYTES] = "";
    int ends[2], status = -1;
    if (pipe2(ends, O_CLOEXEC))
        fatal("pipe");
    pid_t pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDERR_FILENO);
        try();
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t got; length < sizeof reason - 1 &&
                      (got = read(ends[0], reason + length, sizeof reason - 1 - length)) > 0;)
        length += (size_t)got;
    close(ends[0]);
    bool worked = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    reason[strcspn(reason, "\n")] = 0;
    static const char prefix[] = "handiwork-guest: ";
    size_t skip = strncmp(reason, prefix, sizeof prefix - 1) ? 0 : sizeof prefix - 1;
    if (worked)
        printf("%s ok\n", name);
    else
        printf("%s failed %s\n", name, reason[skip] ? reason + skip : "unexpected end");
    return worked;
}

int probe(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    bool all = report("userns", try_userns);
    all &= report("overlay", try_overlay);
    all &= report("nftables", try_nftables);
    all &= report("seccomp", try_seccomp);
    if (!geteuid())
        all &= report("idmap", try_idmap);
    all &= report("pidns", try_pidns);
    report("timens", try_timens);
    return !all;
}
