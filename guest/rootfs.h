/* The root file system of a sandbox: the image under an overlay, and fresh /proc, /dev, /tmp and /sys. */
#ifndef HANDIWORK_ROOTFS_H
#define HANDIWORK_ROOTFS_H

#include "options.h"

enum { DEVICES = 6 };

/* Detached copies of mounts of the host, ready to be attached inside; -1 where there is none. */
struct sources {
    int image, disk, layers[LAYERS_MAX], usr, bundle, devices[DEVICES];
    int outer_usr, runsc, agent, runsc_config; /* of a gVisor sandbox, for the root around it */
};

/* Opens them. By the launcher when it is privileged, else by the child in its own mount namespace. */
void rootfs_open_sources(struct sources *sources, const struct options *options);

/* Maps the ids of the image through the user namespace of `pid`. */
void rootfs_map_image(const struct sources *sources, int pid);

/* Maps the ids of disk and layers through that of another `pid`. */
void rootfs_map_disk(const struct sources *sources, const struct options *options, int pid);

/* Makes the directories that the mounts need; the current directory becomes the state directory. */
void rootfs_prepare_state(const struct options *options);

/* In the child: builds the root and makes it the only one. Must run in fresh namespaces. */
void rootfs_enter(const struct sources *sources, const struct options *options);

/*
 * The same for a sandbox in gVisor: its root becomes a directory of an outer root, which has what runsc needs
 * and nothing else of the host.
 */
void rootfs_enter_outer(const struct sources *sources, const struct options *options);

/* Hides what /proc tells about the host, and makes its switches read-only. Last of all mounts. */
void rootfs_mask_proc(void);

#endif
