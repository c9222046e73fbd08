/* WATCH: what changes in a directory, or in a tree of them. */
#ifndef HANDIWORK_NOTIFY_H
#define HANDIWORK_NOTIFY_H

#include "channel.h"

void notify_begin(uint32_t id, const struct value *values);

#endif
