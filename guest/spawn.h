/* Starting one guest process: everything between fork and exec. */
#ifndef HANDIWORK_SPAWN_H
#define HANDIWORK_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct spawn_limits {
    uint64_t open_files, processes, file_bytes; /* 0: leave as it is */
};

struct spawn {
    char **argv, **env;
    const char *cwd;
    uid_t uid;
    gid_t gid;
    uint64_t mark;
    int stdin_fd, stdout_fd, stderr_fd;
    bool terminal; /* stdin is one, and becomes the session's own */
};

/* What the child sends up the status pipe when it cannot become the program. */
struct spawn_failure {
    int32_t error;
    char step[28];
};

/* Sets what holds for all guest processes; before the agent becomes non-dumpable. */
void spawn_prepare(const struct spawn_limits *limits);

/* From now on programs are started with this library before all others, unless they were given one. */
void spawn_preload(const char *path);

/*
 * Forks; returns the pid, or -1. `*status` becomes the reading end of a pipe that yields a spawn_failure, or
 * nothing at all once the program runs.
 *
 * A plain fork and not vfork: a child that shares our memory and has dropped its user could be stopped by
 * any process of that user, and pid 1 would wait for it for ever.
 */
pid_t spawn(const struct spawn *what, int *status);

#endif
