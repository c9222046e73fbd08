/* PROCESSES: what runs inside, what it uses, and where it listens. */
#ifndef HANDIWORK_PROCESSES_H
#define HANDIWORK_PROCESSES_H

#include "channel.h"

void processes_begin(uint32_t id, const struct value *values);

#endif
