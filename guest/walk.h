/* LIST and REMOVE: directories, in slices, without recursion and without following links. */
#ifndef HANDIWORK_WALK_H
#define HANDIWORK_WALK_H

#include "channel.h"

void list_begin(uint32_t id, const struct value *values);
void remove_begin(uint32_t id, const struct value *values);

#endif
