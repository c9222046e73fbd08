/*
 * One process that holds a warm engine and forks cells from it, ends them, and watches those that run.
 *
 * It has no secret, one thread, and never runs guest code. PROTOCOL.md has its messages.
 */
#ifndef HANDIWORK_CELL_ZYGOTE_H
#define HANDIWORK_CELL_ZYGOTE_H

#include <stdint.h>

enum { CONTROL_SOCKET = 3, CELLS_MAX = 16384 };

/* How a cell ends that cannot go on: with no memory, or with a host that speaks otherwise. */
enum { EXIT_NO_MEMORY = 4, EXIT_BAD_FRAME = 5 };

/* An engine is warm before the first fork; `serve` is called in the cell, in its cage, and never returns. */
struct engine {
    void (*born)(void); /* after the fork, before the cage: what must differ from cell to cell */
    void (*serve)(void);
};

/* Says which bits hold (cage.h), serves the control socket until its other end is closed. */
_Noreturn void zygote_serve(const struct engine *engine, unsigned holds);

#endif
