#define _GNU_SOURCE
#include "spawn.h"

#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STATUS_FD = 3, GUEST_OOM_SCORE = 500 };

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static struct spawn_limits limits;
static int oom_fd = -1;
static char own_oom_score[16];
static char preload[64]; /* LD_PRELOAD=… */

void spawn_prepare(const struct spawn_limits *wanted)
{
    limits = *wanted;
    oom_fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    ssize_t got = oom_fd < 0 ? 0 : read(oom_fd, own_oom_score, sizeof own_oom_score - 1);
    if (got <= 0 || atoi(own_oom_score) >= GUEST_OOM_SCORE) {
        close(oom_fd);
        oom_fd = -1;
    }
}

void spawn_preload(const char *path)
{
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", path);
}

/*
 * Children inherit the score of the moment: the agent raises its own around the fork, because the file of a
 * non-dumpable process cannot be opened by itself later on. It never goes below what it was given: a lower
 * floor would be inherited too, and let guests hide from the killer.
 */
static void set_oom_score(const char *score)
{
    if (oom_fd >= 0 && pwrite(oom_fd, score, strlen(score), 0) < 0) {
        close(oom_fd);
        oom_fd = -1;
    }
}

static _Noreturn void give_up(const char *step)
{
    struct spawn_failure failure = {.error = errno};
    snprintf(failure.step, sizeof failure.step, "%s", step);
    if (write(STATUS_FD, &failure, sizeof failure) < 0)
        _exit(126);
    _exit(127);
}

static void limit(int resource, uint64_t value, const char *step)
{
    struct rlimit wanted;
    if (!value)
        return;
    if (syscall(SYS_prlimit64, 0, resource, NULL, &wanted))
        give_up(step);
    if (wanted.rlim_max == RLIM_INFINITY || value < wanted.rlim_max)
        wanted.rlim_max = value;
    wanted.rlim_cur = wanted.rlim_max;
    if (syscall(SYS_prlimit64, 0, resource, &wanted, NULL))
        give_up(step);
}

static void place_descriptors(const struct spawn *what, int status)
{
    /* Lifted first, so that no target number is still a source. */
    int in = fcntl(what->stdin_fd, F_DUPFD, 16), out = fcntl(what->stdout_fd, F_DUPFD, 16);
    int err = fcntl(what->stderr_fd, F_DUPFD, 16), report = fcntl(status, F_DUPFD, 16);
    if (report < 0 || dup3(report, STATUS_FD, O_CLOEXEC) < 0)
        _exit(127);
    if (in < 0 || out < 0 || err < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        give_up("descriptors");
    /* Not UINT_MAX, which gVisor takes for a negative number. */
    if (syscall(SYS_close_range, STATUS_FD + 1, INT_MAX, 0))
        give_up("close_range");
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    if (signal(SIGPIPE, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &none, NULL))
        give_up("signals");
}

static void take_identity(const struct spawn *what)
{
    /* EPERM: the map has one user only and forbids it; there are no other groups to keep or to lose. */
    if (setgroups(0, NULL) && errno != EPERM)
        give_up("setgroups");
    if (setresgid(what->gid, what->gid, what->gid))
        give_up("gid");
    if (setresuid(what->uid, what->uid, what->uid))
        give_up("uid");
}

/* The child's environment with the library in front; as it was when there is none, or no room. */
static char **environment(const struct spawn *what)
{
    size_t count = 0;
    for (; what->env[count]; count++)
        if (!strncmp(what->env[count], "LD_PRELOAD=", 11))
            return what->env;
    char **env = *preload ? calloc(count + 2, sizeof *env) : NULL;
    if (!env)
        return what->env;
    memcpy(env + 1, what->env, count * sizeof *env);
    env[0] = preload;
    return env;
}

static const char *search_path(char **env)
{
    for (; *env; env++)
        if (!strncmp(*env, "PATH=", 5))
            return *env + 5;
    return default_path;
}

/* What is no file is never opened to be run: some kernels would wait in it for the writer of a pipe. */
static void execute(const char *path, char *const *argv, char **env)
{
    struct stat there;
    if (!stat(path, &there) && !S_ISREG(there.st_mode))
        errno = EACCES;
    else
        execve(path, argv, env);
}

static void run_from_path(const struct spawn *what, char **env)
{
    char candidate[PATH_MAX];
    int error = ENOENT;
    for (const char *at = search_path(what->env); at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
        size_t length = strcspn(at, ":");
        int size = snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)length, at, length ? "/" : "./",
                            what->argv[0]);
        if (size < 0 || (size_t)size >= sizeof candidate)
            continue;
        execute(candidate, what->argv, env);
        /* Like a shell: what is there and may not be run is worth telling before what is not there. */
        if (errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    errno = error;
}

static _Noreturn void become(const struct spawn *what, int status)
{
    place_descriptors(what, status);
    setsid();
    if (what->terminal && ioctl(0, TIOCSCTTY, 0))
        give_up("terminal");
    reset_signals();
    umask(022);
    limit(RLIMIT_NOFILE, limits.open_files, "nofile");
    limit(RLIMIT_NPROC, limits.processes, "nproc");
    limit(RLIMIT_FSIZE, limits.file_bytes, "fsize");
    if (!tree_mark_self(what->mark))
        give_up("mark");
    take_identity(what);
    if (chdir(what->cwd))
        give_up("cwd");
    char **env = environment(what);
    if (strchr(what->argv[0], '/'))
        execute(what->argv[0], what->argv, env);
    else
        run_from_path(what, env);
    give_up("exec");
}

pid_t spawn(const struct spawn *what, int *status)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -1;
    char raised[16];
    snprintf(raised, sizeof raised, "%d", GUEST_OOM_SCORE);
    set_oom_score(raised);
    pid_t pid = fork();
    if (!pid)
        become(what, ends[1]);
    int error = errno;
    set_oom_score(own_oom_score);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        errno = error;
        return -1;
    }
    *status = ends[0];
    return pid;
}
