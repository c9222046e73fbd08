/* EXEC and TERMINAL: one guest process, its three streams, its time limit and its end. */
#ifndef HANDIWORK_EXEC_H
#define HANDIWORK_EXEC_H

#include "channel.h"

void exec_begin(uint32_t id, const struct value *values);

/* The same on a terminal of its own, which is its standard input, output and error. */
void terminal_begin(uint32_t id, const struct value *values);

/* KILLS: how many processes of the sandbox the memory limit has killed. */
void kills_tell(uint32_t id);

/* Gives descriptors of the cgroups' files that count out-of-memory kills; -1 ends the list. */
void exec_watch_memory(const int *event_files);

#endif
