#define _GNU_SOURCE
#include "jail.h"

#include "fatal.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BINDS_MAX = 16,
    CGROUPS_MAX = 16,
    OPEN_FILES = 256,
    THREADS = 96, /* processors, disk threads, one that saves memory */
    INSIDE_ID = 65534,
    NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
};

struct bind {
    const char *source, *name;
    bool writable;
};

struct room {
    unsigned id;      /* 0: the caller's own, in a user namespace */
    unsigned devices; /* the group that may use /dev/kvm; 0: it is not there */
    struct bind binds[BINDS_MAX];
    unsigned bind_count;
    const char *cgroups[CGROUPS_MAX];
    unsigned cgroup_count;
    uint64_t file_bytes;
    char **program;
};

static int leash[2]; /* a byte releases the child; its end says that the launcher is gone */
static volatile pid_t inmate;

static _Noreturn void usage(const char *what)
{
    fatal_because("jail", what, EXIT_BAD_USAGE);
}

static unsigned number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value > UINT_MAX)
        usage("not a number in range");
    return (unsigned)value;
}

static void take_bind(struct room *room, char **values)
{
    if (room->bind_count == BINDS_MAX || strchr(values[1], '/'))
        usage("--bind SOURCE NAME ro|rw, NAME without a slash");
    bool writable = !strcmp(values[2], "rw");
    room->binds[room->bind_count++] = (struct bind){values[0], values[1], writable};
}

static void parse(struct room *room, int argc, char **argv)
{
    int i = 0;
    for (; i < argc && strcmp(argv[i], "--"); i += 2) {
        if (i + 1 >= argc)
            usage("value missing");
        if (!strcmp(argv[i], "--id")) {
            room->id = number(argv[i + 1]);
        } else if (!strcmp(argv[i], "--kvm-group")) {
            room->devices = number(argv[i + 1]);
        } else if (!strcmp(argv[i], "--fsize-mib")) {
            room->file_bytes = (uint64_t)number(argv[i + 1]) << 20;
        } else if (!strcmp(argv[i], "--cgroup") && room->cgroup_count < CGROUPS_MAX) {
            room->cgroups[room->cgroup_count++] = argv[i + 1];
        } else if (!strcmp(argv[i], "--bind") && i + 3 < argc) {
            take_bind(room, argv + i + 1);
            i += 2;
        } else {
            usage(argv[i]);
        }
    }
    if (i + 1 >= argc)
        usage("-- PROGRAM is missing");
    room->program = argv + i + 1;
}

/* The launcher's side. */

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fatal(path);
    close(fd);
}

static void write_maps(pid_t pid)
{
    char path[64], map[64];
    snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
    write_file(path, "deny");
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    snprintf(map, sizeof map, "%d %u 1", INSIDE_ID, getuid());
    write_file(path, map);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    snprintf(map, sizeof map, "%d %u 1", INSIDE_ID, getgid());
    write_file(path, map);
}

static void join_cgroups(const struct room *room, pid_t pid)
{
    char path[PATH_MAX], text[16];
    snprintf(text, sizeof text, "%d", pid);
    for (unsigned i = 0; i < room->cgroup_count; i++) {
        snprintf(path, sizeof path, "%s/cgroup.procs", room->cgroups[i]);
        write_file(path, text);
    }
}

static void end_inmate(int signal_number)
{
    (void)signal_number;
    kill(inmate, SIGKILL);
}

/* The child's side. */

static int clone_tree(const char *path, uint64_t attributes)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, flags);
    /* In a user namespace a mount cannot be copied without what is mounted on it. */
    if (tree < 0 && errno == EINVAL)
        tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, flags | AT_RECURSIVE);
    struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
    if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr))
        fatal(path);
    return tree;
}

static void attach(int tree, const char *target)
{
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH))
        fatal(target);
    close(tree);
}

static void attach_file(int tree, const char *target)
{
    int file = open(target, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0)
        fatal(target);
    close(file);
    attach(tree, target);
}

/* All sources are opened before the new root hides what lies under the place where it is built. */
static void build_root(const struct room *room)
{
    static const char *const links[] = {"bin", "sbin", "lib", "lib64"};
    int trees[BINDS_MAX], kvm = -1;
    const uint64_t still = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    char text[64];
    for (unsigned i = 0; i < room->bind_count; i++) {
        uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        attributes |= room->binds[i].writable ? 0 : MOUNT_ATTR_RDONLY;
        trees[i] = clone_tree(room->binds[i].source, attributes);
    }
    int usr = clone_tree("/usr", still);
    int null = clone_tree("/dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (room->devices)
        kvm = clone_tree("/dev/kvm", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k,nr_inodes=64") || chdir("/tmp"))
        fatal("root");
    if (mkdir("usr", 0755) || mkdir("dev", 0755))
        fatal("root");
    attach(usr, "usr");
    attach_file(null, "dev/null");
    if (kvm >= 0)
        attach_file(kvm, "dev/kvm");
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        snprintf(text, sizeof text, "usr/%s", links[i]);
        if (symlink(text, links[i]))
            fatal(links[i]);
    }
    for (unsigned i = 0; i < room->bind_count; i++)
        attach_file(trees[i], room->binds[i].name);
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        fatal("pivot_root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
        fatal("root");
}

static void limit(__rlimit_resource_t resource, uint64_t most)
{
    struct rlimit now;
    if (getrlimit(resource, &now))
        fatal("rlimit");
    if (now.rlim_max > most)
        now.rlim_max = most;
    if (now.rlim_cur > now.rlim_max || resource == RLIMIT_NOFILE)
        now.rlim_cur = now.rlim_max;
    if (setrlimit(resource, &now))
        fatal("rlimit");
}

static void become(const struct room *room)
{
    gid_t groups[] = {room->devices};
    limit(RLIMIT_CORE, 1); /* not none: for that a core_pattern's program would be run */
    limit(RLIMIT_NOFILE, OPEN_FILES);
    if (room->file_bytes)
        limit(RLIMIT_FSIZE, room->file_bytes);
    if (!room->id)
        return;
    limit(RLIMIT_NPROC, THREADS);
    if (setgroups(room->devices ? 1 : 0, groups) || setresgid(room->id, room->id, room->id) ||
        setresuid(room->id, room->id, room->id))
        fatal("ids");
}

static _Noreturn void child(const struct room *room)
{
    char byte, *environment[] = {NULL};
    struct pollfd gone = {.fd = leash[0]};
    close(leash[1]);
    if (read(leash[0], &byte, 1) != 1)
        _exit(EXIT_LAUNCH_FAILED); /* the launcher has said why */
    setsid();
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        fatal("private mounts");
    build_root(room);
    become(room);
    /* Lost with a change of ids, so last; a launcher that died before that has let go of its end. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL) ||
        poll(&gone, 1, 0) < 0 || gone.revents & POLLHUP)
        _exit(EXIT_LAUNCH_FAILED);
    execve(room->program[0], room->program, environment);
    fatal(room->program[0]);
}

/* An ordinary user has the other namespaces by way of one of users. */
static _Noreturn void without_namespaces(bool users)
{
    if (users && (errno == EPERM || errno == ENOSPC))
        fatal_because("user namespace", "this host gives none more: `handiwork doctor` says why", EXIT_LAUNCH_FAILED);
    fatal("namespaces");
}

int jail(int argc, char **argv)
{
    struct room room = {0};
    int status;
    parse(&room, argc, argv);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || pipe2(leash, O_CLOEXEC))
        fatal("jail");
    int users = room.id ? 0 : CLONE_NEWUSER;
    pid_t pid = (pid_t)syscall(SYS_clone, NAMESPACES | users | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        without_namespaces(users);
    if (!pid)
        child(&room);
    inmate = pid;
    if (signal(SIGTERM, end_inmate) == SIG_ERR)
        fatal("signal");
    if (users)
        write_maps(pid);
    join_cgroups(&room, pid);
    if (write(leash[1], "", 1) != 1)
        fatal("release");
    /* What the program was given is its alone: its end must be seen at the other side. */
    for (int fd = 3; fd < 64; fd++)
        if (fd != leash[1])
            close(fd);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            fatal("wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
