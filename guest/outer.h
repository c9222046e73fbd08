/*
 * What stands around gVisor: pid 1 of namespaces of their own, in which nothing of the host is but its programs,
 * the sandbox's root file system, and no network at all. It starts runsc, answers at the door (door.h), and
 * ends, and with it everything here, when runsc does.
 */
#ifndef HANDIWORK_OUTER_H
#define HANDIWORK_OUTER_H

#include "claim.h"
#include "options.h"

/* Where the outer root has what runsc is given. */
#define OUTER_RUNSC "/runsc"
#define OUTER_AGENT "/guest"
#define OUTER_BUNDLE "/bundle"
#define OUTER_STATE "/run"
#define OUTER_ROOTFS "/rootfs"

/*
 * Starts runsc with `channel` as the guest's standard input. Where a claim is awaited it is taken here, and its name
 * passed on through the door; the agent inside reads nothing of the channel before.
 */
_Noreturn void outer_serve(const struct options *options, int channel, struct claim *claim);

#endif
