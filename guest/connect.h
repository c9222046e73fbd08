/* CONNECT: a connection of the host's to a port that somebody inside listens on. */
#ifndef HANDIWORK_CONNECT_H
#define HANDIWORK_CONNECT_H

#include "channel.h"

void connect_begin(uint32_t id, const struct value *values);

#endif
