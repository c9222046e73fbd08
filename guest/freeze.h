/* FREEZE: stops every guest process, and lets go on exactly those that ran. */
#ifndef HANDIWORK_FREEZE_H
#define HANDIWORK_FREEZE_H

#include <stdbool.h>
#include <stdint.h>

void freeze_begin(uint32_t id);

/* True from a FREEZE on until its end: whoever would start a process must refuse. */
bool freeze_holds(void);

#endif
