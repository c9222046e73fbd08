#define _GNU_SOURCE
#include "cage.h"

#include "fatal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILTER_MAX = 512, STACK_BYTES = 8 << 20, ID_TEXT = 64 };

#define NAMESPACES (CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWCGROUP)

static struct sock_filter filter[FILTER_MAX];
static struct sock_fprog program = {.filter = filter};
static unsigned descriptors; /* one above the last of a cell's */
static unsigned threads;

static void load_filter(int descriptor)
{
    ssize_t got = read(descriptor, filter, sizeof filter);
    if (got <= 0 || got % (ssize_t)sizeof filter[0] || got == (ssize_t)sizeof filter)
        fatal_because("filter", "not a program of at most 511 instructions", EXIT_BAD_USAGE);
    program.len = (unsigned short)((size_t)got / sizeof filter[0]);
    close(descriptor);
}

static void limit(int which, rlim_t value)
{
    struct rlimit both = {value, value};
    if (setrlimit((__rlimit_resource_t)which, &both))
        fatal("rlimit");
}

static bool write_map(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

/* Without root a user namespace gives the right to the others; where it is forbidden there are none. */
static bool own_namespaces(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (uid == 0)
        return unshare(NAMESPACES) == 0;
    if (unshare(CLONE_NEWUSER | NAMESPACES))
        return false;
    char users[ID_TEXT], groups[ID_TEXT];
    snprintf(users, sizeof users, "65534 %u 1", uid);
    snprintf(groups, sizeof groups, "65534 %u 1", gid);
    return write_map("/proc/self/setgroups", "deny") && write_map("/proc/self/uid_map", users) &&
           write_map("/proc/self/gid_map", groups);
}

static void drop_bounding_set(void)
{
    for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++)
        prctl(PR_CAPBSET_DROP, one); /* refused without the right, which is then not there to lose */
}

static void drop_capabilities(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } none[2] = {0};
    if (syscall(SYS_capset, &header, none))
        fatal("capset");
}

static void drop_rights(uid_t id)
{
    drop_bounding_set();
    if (id) {
        if (setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id))
            fatal("setresuid");
    }
    drop_capabilities();
}

/* The kernel forgets this when the user changes. */
static void die_with_parent(void)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fatal("pdeathsig");
}

/* The first process of the new process namespace goes on; who stays waits for it, and dies with the host. */
static void go_on_as_first(uid_t id)
{
    pid_t first = fork();
    if (first < 0)
        fatal("fork");
    if (first == 0)
        return;
    drop_rights(id);
    die_with_parent();
    int status;
    while (waitpid(first, &status, 0) < 0 && errno == EINTR)
        continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* An empty file system in the place of all others, which are let go of. */
static bool empty_root(const char *root)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=1,mode=555") ||
        mount(NULL, root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ||
        chdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return false;
    return true;
}

unsigned cage_zygote(const struct cage *cage)
{
    unsigned holds = CAGE_FILTER;
    threads = cage->threads;
    descriptors = CELL_SOCKET + 1 + cage->engine_descriptors;
    load_filter(cage->filter);
    if (own_namespaces()) {
        holds |= CAGE_NO_NETWORK;
        go_on_as_first(cage->id);
        if (empty_root(cage->root))
            holds |= CAGE_NO_FILES;
    }
    if (cage->id)
        holds |= CAGE_OWN_USER;
    drop_rights(cage->id);
    die_with_parent();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        fatal("prctl");
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_DATA, cage->data_bytes);
    limit(RLIMIT_STACK, STACK_BYTES);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_MEMLOCK, 0);
    limit(RLIMIT_MSGQUEUE, 0);
    return holds;
}

void cage_take(int socket)
{
    if (dup2(socket, CELL_SOCKET) < 0 || syscall(SYS_close_range, CELL_SOCKET + 1, ~0U, 0))
        _exit(EXIT_START_FAILED);
}

/*
 * The kernel counts tasks by user, and all cells are of one: in a user namespace of its own a cell is counted alone.
 * Where there is none to be had it has no threads.
 */
static void bound_threads(void)
{
    bool counted = threads && unshare(CLONE_NEWUSER) == 0;
    if (counted) {
        drop_bounding_set();
        drop_capabilities();
    }
    limit(RLIMIT_NPROC, counted ? threads + 1 : 0);
}

void cage_cell(void)
{
    if (syscall(SYS_close_range, 0, CELL_SOCKET - 1, 0) || syscall(SYS_close_range, descriptors, ~0U, 0))
        _exit(EXIT_START_FAILED);
    limit(RLIMIT_NOFILE, descriptors);
    bound_threads();
    limit(RLIMIT_SIGPENDING, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        fatal("seccomp");
}
