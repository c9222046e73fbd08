/* Terminals: a pair of ends, of which the agent keeps one and a guest's session controls the other. */
#ifndef HANDIWORK_TERMINAL_H
#define HANDIWORK_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct terminal {
    int ours, theirs; /* ours does not block */
};

/* Opens one that belongs to `uid`; false with errno. */
bool terminal_open(struct terminal *terminal, uid_t uid);

/* Whoever is in its foreground is told by SIGWINCH. False when the size is none. */
bool terminal_resize(int end, uint64_t columns, uint64_t rows);

#endif
