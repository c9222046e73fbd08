/* Requests about files that are answered at once: STAT, MKDIR, MOVE, REALPATH. */
#ifndef HANDIWORK_FILES_H
#define HANDIWORK_FILES_H

#include "channel.h"

#include <sys/stat.h>

void files_stat(uint32_t id, const struct value *values);
void files_mkdir(uint32_t id, const struct value *values);
void files_move(uint32_t id, const struct value *values);
void files_realpath(uint32_t id, const struct value *values);

/* Fills the six values that INFO and ENTRY have in common. */
void files_info(const struct stat *stat, struct value *values);

#endif
