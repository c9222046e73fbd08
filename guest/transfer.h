/* READ and WRITE: contents of regular files, in slices, by credit. */
#ifndef HANDIWORK_TRANSFER_H
#define HANDIWORK_TRANSFER_H

#include "channel.h"

void read_begin(uint32_t id, const struct value *values);
void write_begin(uint32_t id, const struct value *values);

#endif
