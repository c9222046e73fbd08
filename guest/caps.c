#define _GNU_SOURCE
#include "caps.h"

#include "fatal.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What package managers need. None of these reaches beyond the user namespace. */
static const int kept[] = {
    CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,  CAP_FSETID, CAP_SETUID,
    CAP_SETGID, CAP_SETFCAP,      CAP_KILL,    CAP_NET_BIND_SERVICE,
};

void caps_drop(void)
{
    caps_drop_but(-1);
}

void caps_drop_but(int own)
{
    uint64_t mask = 0;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        mask |= (uint64_t)1 << kept[i];
    /* The bounding set first, while CAP_SETPCAP is still there; the kernel says where its list ends. */
    for (int capability = 0; capability < 64; capability++)
        if (!(mask >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)) {
            if (errno == EINVAL)
                break;
            fatal("capability bounding set");
        }
    /* EINVAL: a kernel that has no ambient capabilities, as gVisor. */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
        fatal("ambient capabilities");
    if (own >= 0)
        mask |= (uint64_t)1 << own;
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    struct __user_cap_data_struct sets[2] = {{low, low, 0}, {high, high, 0}};
    if (syscall(SYS_capset, &head, sets))
        fatal("capset");
}

void caps_raise(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &head, sets))
        fatal("capget");
    for (int i = 0; i < 2; i++)
        sets[i].effective = sets[i].permitted;
    if (syscall(SYS_capset, &head, sets))
        fatal("capset");
}
