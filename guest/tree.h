/*
 * The processes that belong to one EXEC.
 *
 * Parentage is lost when a daemon is orphaned, sessions and groups are left by setsid; so each EXEC gets a
 * mark that is inherited and cannot be taken off: a hard limit on file locks, a resource that Linux has not
 * read since 2.4. The seccomp filter lets nobody change that limit who does not pass the agent's random
 * cookie in an argument that the kernel ignores. A cgroup would do the same, where one could be had.
 */
#ifndef HANDIWORK_TREE_H
#define HANDIWORK_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The cookie; drawn by the first call, which must come before the filter is built. */
uint64_t tree_cookie(void);

/* The resource whose hard limit is the mark. */
int tree_resource(void);

/*
 * In gVisor there are no limits of file locks and no files that tell limits: from now on the mark is the limit
 * of resident memory, which neither kernel enforces, and is read by prlimit. That needs CAP_SYS_RESOURCE.
 */
void tree_mark_by_resident_limit(void);

/* A mark that no earlier EXEC had. */
uint64_t tree_new_mark(void);

/* Marks the calling process; its descendants inherit it. */
bool tree_mark_self(uint64_t mark);

/* A small number for the mark that a process bears; 0 when it has none of ours, or is gone. */
uint64_t tree_of(pid_t pid);

/* Sends a signal to every process that bears the mark. */
void tree_signal(uint64_t mark, int number);

/* Kills them all, however they fork; stops the whole sandbox for a moment where nothing else would do. */
void tree_kill(uint64_t mark);

#endif
