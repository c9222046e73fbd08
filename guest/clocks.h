/* Clocks that count from the start of the sandbox, not of the host. */
#pragma once

#include <stdbool.h>

/*
 * Notes whether user.max_time_namespaces is exactly 0. To be called before a user namespace is entered: it has a limit
 * of its own, which hides the one that holds.
 */
void clocks_look(void);

/* Whether it was. */
bool clocks_are_forbidden(void);

/*
 * Enters a time namespace whose monotonic and boot clocks begin within their first two seconds, together with all who
 * will be started. Where the kernel has none, or they are forbidden, the host's clocks stay, and the driver tells;
 * where another limit is reached the program ends.
 * One thread, all capabilities of the user namespace, our own /proc.
 */
void clocks_restart(void);
