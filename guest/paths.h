/*
 * Opening what a path of the host's request names, in a tree that the guest may change at any moment.
 *
 * Links are followed as for any program inside, but never the magic ones of /proc: through them a planted link
 * would have the agent, who is privileged over itself, read or write its own memory. Nothing here blocks: not
 * on a FIFO, not on a lease.
 */
#ifndef HANDIWORK_PATHS_H
#define HANDIWORK_PATHS_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/types.h>

struct owner {
    uid_t uid;
    gid_t gid;
};

/* A directory and a name in it. */
struct place {
    int directory;
    char *name; /* points into the path that was given, which was cut */
};

/* Opens `path` with `flags` (close-on-exec and non-blocking are added); -1 with errno. Refuses /proc. */
int path_open(const char *path, int flags);

/* The same, and a regular file only. */
int path_open_file(const char *path, int flags);

/* Cuts `path` into its parent, which is opened, and its last name; false with errno. */
bool path_split(char *path, struct place *place);

/* Makes every directory above the last name of `path` that is missing. */
bool path_make_parents(const char *path, const struct owner *owner);

/* Makes one directory with its owner and mode. */
bool path_make_directory(const char *path, mode_t mode, const struct owner *owner);

#endif
