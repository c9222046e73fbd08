/* Everything of the sandbox held still by the machine's own kernel, for its disk and memory to be of one moment. */
#ifndef HANDIWORK_HOLD_H
#define HANDIWORK_HOLD_H

#include <stdbool.h>

/* Stops every process of the sandbox and the agent; false, with all of them going on, when one does not stop in time. */
bool hold_sandbox(void);

/* Lets them go on. False when that failed; nothing happens when they are not held, or there is no sandbox. */
bool hold_release(void);

#endif
