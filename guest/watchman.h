/* Stops a sandbox whose files outgrow their limit, where no disk of their own bounds them. It is soft: what is written
 * between two looks is there. */
#ifndef HANDIWORK_WATCHMAN_H
#define HANDIWORK_WATCHMAN_H

#include "options.h"
#include "weigh.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>

enum { WATCHED_PLACES = 2, REASON_BYTES = 160, ANSWERED = 1 };

/* What the one who counts says; or, where it fails, a line as fatal() writes it, which begins with no such mark. */
struct answer {
    char mark; /* ANSWERED */
    bool seen;
    struct weight found;
};

struct watchman {
    int agent, pidfd;
    int places[WATCHED_PLACES];
    struct weight most, found;
    struct answer answer;
    struct statvfs system; /* when it was last counted */
    unsigned long long free_blocks; /* at the last look */
    int64_t began_ms, ended_ms, failing_ms; /* of the last count; of the first that failed in a row */
    int pause_ms, failures;
    bool counted;
    pid_t counter; /* 0: nobody counts */
    int answers;   /* -1, or where the counter answers */
    char reason[REASON_BYTES]; /* why the last count failed, or "" */
};

/* Before the agent can be told to begin: from then on its state directory may be given another name. */
void watchman_open(struct watchman *watchman, const struct options *options, int agent);

/*
 * Stays in the launcher until the agent has ended, which remains to be waited for. Over the limit the agent is killed,
 * after one line on stderr that says why: `handiwork-guest: disk: …`; so too when it cannot be counted.
 */
void watchman_stay(struct watchman *watchman);

#endif
