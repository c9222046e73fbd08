/* What C gives to the prelude, which hides it from guest code. */
#ifndef HANDIWORK_CELL_NATIVES_H
#define HANDIWORK_CELL_NATIVES_H

#include <quickjs.h>

/* An object of functions; see natives.c for each. */
JSValue natives_object(JSContext *context);

/* Seeds what is random, from the kernel: a fork has its parent's numbers else. */
void natives_seed(void);

#endif
