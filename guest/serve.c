#define _GNU_SOURCE
#include "serve.h"

#include "agent.h"
#include "caps.h"
#include "claim.h"
#include "egress.h"
#include "fatal.h"
#include "launch.h"
#include "netstack.h"
#include "options.h"
#include "seccomp.h"
#include "spawn.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PRELOAD "/dev/.handiwork-stat.so"

enum { CHANNEL = 3, DOOR = 4 };

/* The library of preload.c, which the build puts here. */
__asm__(".pushsection .rodata\n"
        "preload_start: .incbin \"preload.so\"\n"
        "preload_end: .popsection\n");
extern const char preload_start[], preload_end[];

/* Above the standard descriptors, which guests get others for. */
static void take_descriptors(void)
{
    struct stat door;
    if (fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, CHANNEL) != CHANNEL)
        fatal("channel");
    /* Without an exit there is no door: standard output is then no socket. */
    if (fstat(STDOUT_FILENO, &door))
        fatal("door");
    if (S_ISSOCK(door.st_mode)) {
        if (fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, DOOR) != DOOR)
            fatal("door");
        egress_open_door(DOOR);
    }
}

/* Our own program was put into the tree to be started; nobody inside needs it any more. */
static void leave_no_program(const char *path)
{
    if (umount2(path, MNT_DETACH) || (unlink(path) && rmdir(path)))
        fatal(path);
}

/* gVisor before 2023 refuses a flag that `ls` and `stat` of today always give. */
static void mend_stat_calls(void)
{
    struct stat found;
    if (!fstatat(AT_FDCWD, "/", &found, AT_NO_AUTOMOUNT) || errno != EINVAL)
        return;
    int fd = open(PRELOAD, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0555);
    size_t size = (size_t)(preload_end - preload_start);
    if (fd < 0 || write(fd, preload_start, size) != (ssize_t)size || close(fd))
        fatal(PRELOAD);
    spawn_preload(PRELOAD);
}

void serve(int argc, char **argv)
{
    struct options options = {0};
    options_parse_limits(&options, argc - 2, argv + 2);
    take_descriptors();
    netstack_capture();
    leave_no_program(argv[0]);
    mend_stat_calls();
    setsid();
    umask(022);
    set_own_limits();
    spawn_prepare(&options.limits);
    tree_mark_by_resident_limit();
    agent_prepare();
    seccomp_for_gvisor();
    seccomp_prepare();
    if (options.awaits_claim) {
        struct claim claim;
        claim_say_ready(CHANNEL);
        claim_await(DOOR, &claim);
        claim_take_name(&claim);
    }
    /* Whose resident limit is read: that of every user inside. Guests do not get it: it is bounded away. */
    caps_drop_but(CAP_SYS_RESOURCE);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fatal("prctl");
    seccomp_install();
    wipe_arguments(argc, argv);
    quiet_standard_descriptors();
    agent_serve(&(struct agent_settings){.channel = CHANNEL, .exit_socket = -1});
}
