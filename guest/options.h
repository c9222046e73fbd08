/* What the command line of `launch` says; PROTOCOL.md gives the meaning of each option. */
#ifndef HANDIWORK_OPTIONS_H
#define HANDIWORK_OPTIONS_H

#include "spawn.h"

#include <stdbool.h>

enum { CGROUPS_MAX = 16, LAYERS_MAX = 32, RUNSC_FLAGS_MAX = 32 };

struct options {
    int channel, image_fd; /* -1: the image is a directory, `root` */
    int disk_fd;           /* -1: upper and work lie in the state directory itself */
    const char *root, *state, *exit_path, *bundle, *hostname;
    bool host_usr;
    bool awaits_claim; /* stop before hardening until somebody wants it */
    bool ranged; /* --id-base was given: a range of ids of our own, and an idmapped image */
    unsigned id_base;
    bool disk_based;    /* --disk-base was given */
    unsigned disk_base; /* the first id of those that own files on disk and layers; they are shown as `id_base` */
    int layers[LAYERS_MAX]; /* descriptors of what lies between image and upper, topmost first */
    unsigned layer_count;
    const char *cgroups[CGROUPS_MAX];
    unsigned cgroup_count;
    unsigned tmp_mib, shm_mib;
    unsigned watched_mib; /* what upper and work may hold together; 0: nobody looks */
    const char *runsc, *bundle_config; /* gVisor: its program and the OCI configuration it is to run */
    const char *runsc_flags[RUNSC_FLAGS_MAX];
    unsigned runsc_flag_count;
    struct spawn_limits limits;
};

/* Reads the options after the verb; paths become absolute. Ends the program with 126 on a wrong one. */
void options_parse(struct options *options, int argc, char **argv);

/* The same for `serve`, which knows only --await-claim and the numbers that limit guest processes. */
void options_parse_limits(struct options *options, int argc, char **argv);

#endif
