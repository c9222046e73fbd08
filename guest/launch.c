#define _GNU_SOURCE
#include "launch.h"

#include "agent.h"
#include "caps.h"
#include "claim.h"
#include "clocks.h"
#include "exec.h"
#include "fatal.h"
#include "netns.h"
#include "outer.h"
#include "rootfs.h"
#include "seccomp.h"
#include "watchman.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IDS = 65536 };
enum { NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS };

/* What launcher and child share by inheritance. */
struct launch {
    struct options *options;
    struct sources sources;
    int channel, exit_socket;
    int leash[2]; /* a byte releases the child to its next stage; its end says that the launcher is gone */
    int memory_events[CGROUPS_MAX + 1];
    int own_joins[CGROUPS_MAX]; /* where the agent joins by itself; -1: the launcher puts it there */
    int argc;
    char **argv;
};

/* The launcher's side. */

static void write_file(const char *step, const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fatal(step);
    close(fd);
}

static void write_map(int pid, const char *file, unsigned inside, unsigned outside, unsigned count)
{
    char path[64], map[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    snprintf(map, sizeof map, "%u %u %u", inside, outside, count);
    write_file(file, path, map);
}

static void write_maps(const struct options *options, int pid)
{
    char path[64];
    const char *files[] = {"uid_map", "gid_map"};
    unsigned ids[] = {getuid(), getgid()};
    if (!options->ranged) {
        /* Without privilege a group map is allowed only where groups cannot be dropped. */
        snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
        write_file("setgroups", path, "deny");
    }
    for (int i = 0; i < 2; i++) {
        if (options->ranged)
            write_map(pid, files[i], 0, options->id_base, IDS);
        else
            write_map(pid, files[i], 0, ids[i], 1);
    }
}

/*
 * On version 1 a thread that moves only itself (a 0 written to `tasks`) takes no lock of all processes.
 * That lock waits for every processor: several milliseconds, more than all the rest of a launch.
 * The right to write is that of who opened the file.
 */
static void open_own_joins(struct launch *launch)
{
    const struct options *options = launch->options;
    char path[PATH_MAX];
    for (unsigned i = 0; i < options->cgroup_count; i++) {
        snprintf(path, sizeof path, "%s/tasks", options->cgroups[i]);
        launch->own_joins[i] = open(path, O_WRONLY | O_CLOEXEC);
        if (launch->own_joins[i] < 0 && errno != ENOENT)
            fatal(path);
    }
}

static void join_own_cgroups(const struct launch *launch)
{
    for (unsigned i = 0; i < launch->options->cgroup_count; i++) {
        if (launch->own_joins[i] < 0)
            continue;
        if (write(launch->own_joins[i], "0", 1) != 1)
            fatal("cgroup tasks");
        close(launch->own_joins[i]);
    }
}

static void join_cgroups(const struct launch *launch, int pid)
{
    const struct options *options = launch->options;
    char path[PATH_MAX], text[16];
    snprintf(text, sizeof text, "%d", pid);
    for (unsigned i = 0; i < options->cgroup_count; i++) {
        if (launch->own_joins[i] >= 0)
            continue;
        snprintf(path, sizeof path, "%s/cgroup.procs", options->cgroups[i]);
        write_file(path, path, text);
    }
}

/* Best effort: they only tell why a process was killed. The first name is of version 2, the second of 1. */
static void open_memory_events(struct launch *launch)
{
    const struct options *options = launch->options;
    char path[PATH_MAX];
    int count = 0;
    for (unsigned i = 0; i < options->cgroup_count; i++) {
        snprintf(path, sizeof path, "%s/memory.events", options->cgroups[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            snprintf(path, sizeof path, "%s/memory.oom_control", options->cgroups[i]);
            fd = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (fd >= 0)
            launch->memory_events[count++] = fd;
    }
    launch->memory_events[count] = -1;
}

/*
 * Leaves the standard descriptors, the channel, which becomes number 3, and of image, disk and layers those that
 * come as descriptors, as the next numbers. Only the first four get inside.
 */
static void take_descriptors(struct launch *launch)
{
    enum { FIRST = 3, KEPT = 3 };
    struct options *options = launch->options;
    int *kept[KEPT + LAYERS_MAX] = {&options->channel, &options->image_fd, &options->disk_fd};
    int count = KEPT, next = FIRST;
    for (unsigned i = 0; i < options->layer_count; i++)
        kept[count++] = &options->layers[i];
    for (int i = 0; i < count; i++)
        if (*kept[i] >= 0 && (*kept[i] = fcntl(*kept[i], F_DUPFD, FIRST + count)) < 0)
            fatal("descriptors");
    for (int i = 0; i < count; i++) {
        if (*kept[i] < 0)
            continue;
        if (dup3(*kept[i], next, O_CLOEXEC) < 0)
            fatal("descriptors");
        *kept[i] = next++;
    }
    if (syscall(SYS_close_range, next, UINT_MAX, 0))
        fatal("descriptors");
    launch->channel = FIRST;
    launch->exit_socket = -1;
    if (launch->options->exit_path) {
        launch->exit_socket = open(launch->options->exit_path, O_PATH | O_CLOEXEC);
        if (launch->exit_socket < 0)
            fatal("exit");
    }
}

/*
 * The kernel counts inotify instances, queued signals, message queues and processes for the owner of the user
 * namespace too. Were that the host's root, one sandbox could use up what all others and root itself need; so
 * the owner is the first id of the sandbox's own range, and the limit of processes holds for the whole range.
 */
static void become_owner(const struct options *options)
{
    struct rlimit processes;
    if (setresuid(options->id_base, options->id_base, 0))
        fatal("owner");
    caps_raise();
    /* Else the owner's child would not be the owner's to look at. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) || getrlimit(RLIMIT_NPROC, &processes))
        fatal("owner");
    if (options->limits.processes && options->limits.processes < processes.rlim_cur) {
        processes.rlim_cur = options->limits.processes;
        if (setrlimit(RLIMIT_NPROC, &processes))
            fatal("owner");
    }
}

static void become_root_again(void)
{
    if (setresuid(0, 0, 0))
        fatal("owner");
    caps_raise();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) /* lost with the change of ids */
        fatal("parent death signal");
}

/* What the kernel lets a process lower its score to is inherited: guests must not hide behind a service's. */
static void set_lowest_oom_score(int pid)
{
    char path[64], text[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        fatal("oom score");
    close(fd);
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    write_file("oom score", path, atoi(text) < 0 ? "0" : text);
}

static volatile pid_t agent;

static void end_agent(int number)
{
    (void)number;
    kill(agent, SIGKILL);
}

/* The kernel ends every process of a pid namespace before its first one counts as ended. */
static int wait_for(int pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            fatal("wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A process in a user namespace of its own that does nothing until its maps are used; it ends with us. */
static int start_sleeper(void)
{
    int hold[2];
    char byte;
    if (pipe2(hold, O_CLOEXEC))
        fatal("pipe");
    int pid = (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        fatal("disk ids");
    if (!pid) {
        close(hold[1]);
        _exit(read(hold[0], &byte, 1) != 0);
    }
    close(hold[0]); /* the other end closes with this program, whatever ends it */
    return pid;
}

/*
 * The files of a disk or layers that were another sandbox's belong to that one's ids. The mounts show them as
 * ours; the namespace that says so has done its part when they have their map.
 */
static void map_disk(const struct launch *launch)
{
    const struct options *options = launch->options;
    if (options->disk_base == options->id_base)
        return;
    int pid = start_sleeper();
    write_map(pid, "uid_map", options->disk_base, options->id_base, IDS);
    write_map(pid, "gid_map", options->disk_base, options->id_base, IDS);
    rootfs_map_disk(&launch->sources, options, pid);
    if (kill(pid, SIGKILL))
        fatal("disk ids");
    wait_for(pid);
}

static void release(const struct launch *launch)
{
    if (write(launch->leash[1], "", 1) != 1)
        fatal("release");
}

/* The child's side. */

static void await_release(const struct launch *launch)
{
    char byte;
    if (read(launch->leash[0], &byte, 1) != 1)
        _exit(EXIT_LAUNCH_FAILED); /* the launcher has said why */
}

/* The death signal is lost when ids change; so it is set after that, and the race with a death before it is
 * closed by asking whether the launcher still holds its end of the leash. */
static void tie_to_launcher(const struct launch *launch)
{
    struct pollfd leash = {.fd = launch->leash[0]};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || poll(&leash, 1, 0) < 0 || leash.revents & POLLHUP)
        _exit(EXIT_LAUNCH_FAILED);
}

static void become_root_inside(const struct options *options)
{
    if (options->ranged && setgroups(0, NULL))
        fatal("setgroups");
    if (setresgid(0, 0, 0) || setresuid(0, 0, 0))
        fatal("ids");
    if (unshare(CLONE_NEWNS))
        fatal("mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        fatal("private mounts");
}

void set_own_limits(void)
{
    /* One byte, not none: a core_pattern that names a program is run, as root of the host, for any limit but 1.
     * The filter keeps guests from changing it. */
    struct rlimit none = {1, 1}, files;
    if (setrlimit(RLIMIT_CORE, &none) || getrlimit(RLIMIT_NOFILE, &files))
        fatal("rlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        fatal("rlimit");
}

/* Anybody inside may read the command line of pid 1, and it names paths of the host. */
void wipe_arguments(int argc, char **argv)
{
    char *start = argv[0], *end = argv[argc - 1] + strlen(argv[argc - 1]);
    for (char **variable = environ; *variable; variable++)
        memset(*variable, 0, strlen(*variable));
    memset(start, 0, (size_t)(end - start));
    memcpy(start, "handiwork-guest", end - start < 15 ? (size_t)(end - start) : 15);
    clearenv();
    prctl(PR_SET_NAME, "handiwork-guest");
}

void quiet_standard_descriptors(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        fatal("/dev/null");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) < 0)
            fatal("/dev/null");
    close(null);
}

/* The last steps, which nobody undoes. */
static _Noreturn void harden_and_serve(struct launch *launch, const struct claim *claim)
{
    claim_take_name(claim);
    caps_drop();
    /* Nobody inside may look into the agent: not its memory, descriptors or environment. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fatal("prctl");
    seccomp_install();
    wipe_arguments(launch->argc, launch->argv);
    quiet_standard_descriptors();
    tie_to_launcher(launch);
    close(launch->leash[0]);
    struct agent_settings settings = {.channel = launch->channel, .exit_socket = claim->exit_socket};
    agent_serve(&settings);
}

static void enter(struct launch *launch)
{
    const struct options *options = launch->options;
    become_root_inside(options);
    if (!options->ranged)
        rootfs_open_sources(&launch->sources, options);
    if (options->runsc) {
        rootfs_enter_outer(&launch->sources, options);
    } else {
        rootfs_enter(&launch->sources, options);
        netns_capture();
        rootfs_mask_proc();
    }
}

static _Noreturn void child(struct launch *launch)
{
    const struct options *options = launch->options;
    struct claim claim;
    close(launch->leash[1]);
    await_release(launch);
    enter(launch);
    await_release(launch);
    join_own_cgroups(launch);
    /* Its root is the group of now, so that no name of the host's groups is seen. */
    if (unshare(CLONE_NEWCGROUP))
        fatal("cgroup namespace");
    setsid();
    umask(022);
    claim_by_options(&claim, options->hostname, launch->exit_socket);
    tie_to_launcher(launch);
    if (options->runsc)
        outer_serve(options, launch->channel, &claim);
    set_own_limits();
    /* Changing ids has made our own /proc files root's of the host; some are needed once more. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        fatal("prctl");
    clocks_restart();
    spawn_prepare(&options->limits);
    exec_watch_memory(launch->memory_events);
    agent_prepare();
    seccomp_prepare();
    if (options->awaits_claim) {
        claim_say_ready(launch->channel);
        claim_await(launch->channel, &claim);
    }
    harden_and_serve(launch, &claim);
}

int launch(struct options *options, int argc, char **argv)
{
    struct launch launch = {.options = options, .argc = argc, .argv = argv};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fatal("parent death signal");
    umask(022);
    clocks_look();
    take_descriptors(&launch);
    open_memory_events(&launch);
    open_own_joins(&launch);
    rootfs_prepare_state(options);
    if (options->ranged)
        rootfs_open_sources(&launch.sources, options);
    if (pipe2(launch.leash, O_CLOEXEC))
        fatal("pipe");
    if (options->ranged)
        become_owner(options);
    int pid = (int)syscall(SYS_clone, NAMESPACES | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        fatal("namespaces");
    if (!pid)
        child(&launch);
    agent = pid;
    if (signal(SIGTERM, end_agent) == SIG_ERR)
        fatal("signal");
    close(launch.leash[0]);
    close(launch.channel);
    write_maps(options, pid);
    if (options->ranged) {
        rootfs_map_image(&launch.sources, pid);
        map_disk(&launch);
        become_root_again();
        set_lowest_oom_score(pid);
    }
    release(&launch);
    /* Meanwhile: joining may wait for every processor, which can take longer than all the rest. */
    join_cgroups(&launch, pid);
    struct watchman watchman;
    if (options->watched_mib)
        watchman_open(&watchman, options, pid);
    release(&launch);
    if (options->watched_mib)
        watchman_stay(&watchman);
    return wait_for(pid);
}
