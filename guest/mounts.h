/* The mount calls of Linux 5.2 and later, which older libc headers leave to the kernel's. */
#ifndef HANDIWORK_MOUNTS_H
#define HANDIWORK_MOUNTS_H

#include <sys/mount.h>

#ifndef OPEN_TREE_CLONE
#include <linux/mount.h>
#endif

#endif
