/* Every thread of the sandbox but the agent's own, as /proc tells: for those who stop, list or judge them. */
#ifndef HANDIWORK_CENSUS_H
#define HANDIWORK_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct thread {
    pid_t process, id;
    char state;       /* R, S, D, T, t, Z, X … */
    uint64_t started; /* with the id it names one thread for good */
    uint64_t runs;    /* how often it was given a processor; grows whenever it runs */
};

struct census {
    struct thread *threads; /* by id */
    size_t count;
};

/* Fills `census`; false (ENOMEM, EIO) when it cannot be had. What it held before is freed. */
bool census_take(struct census *census);

void census_free(struct census *census);

/* The same thread in another census, or NULL. */
const struct thread *census_find(const struct census *census, const struct thread *thread);

/* The process that traces `process`, 0 for none. */
pid_t census_tracer(pid_t process);

#endif
