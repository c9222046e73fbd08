/* Terminals: a pair of ends, of which the agent keeps one and a guest's session controls the other. */
#ifndef HANDIWORK_TERMINAL_H
#define HANDIWORK_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct terminal {
    int ours, theirs; /* ours does not block */
};

/* Opens one that belongs to `uid`; false with errno. */
bool terminal_open(struct terminal *terminal, uid_t uid);

/*
 * What this kernel's terminals do for their session. Some versions of gVisor have pipes for terminals, whose keys
 * interrupt nobody; later ones know the keys, but have no /dev/tty and tell nobody of a new size.
 */
enum control { CONTROL_NONE, CONTROL_KEYS, CONTROL_WHOLE, CONTROL_UNKNOWN };

/* Tried until there is one, in a process of its own. CONTROL_UNKNOWN: that was kept from telling. */
enum control terminal_control(void);

/*
 * As write, of a part at most. With CONTROL_KEYS a program that wants its keys raw is interrupted by them all the
 * same: while it is given some, the keys that interrupt are bytes that are not among them.
 */
ssize_t terminal_write(int end, const uint8_t *bytes, size_t length);

/* Whoever is in its foreground is told by SIGWINCH, with CONTROL_WHOLE. False when the size is none. */
bool terminal_resize(int end, uint64_t columns, uint64_t rows);

#endif
