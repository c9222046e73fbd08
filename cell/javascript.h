/* The JavaScript engine: QuickJS-ng with the prelude, warm in the zygote, one context a cell. */
#ifndef HANDIWORK_CELL_JAVASCRIPT_H
#define HANDIWORK_CELL_JAVASCRIPT_H

#include "zygote.h"

#include <stdint.h>

extern const struct engine javascript;

/* Makes the context and runs the prelude; `memory_bytes` is what guest code may allocate in all. */
void javascript_warm(uint64_t memory_bytes);

#endif
