/* What /proc tells of one process or thread: small texts, and the fields of a stat line. */
#ifndef HANDIWORK_PROC_H
#define HANDIWORK_PROC_H

#include <stddef.h>
#include <stdint.h>

enum { PROC_TEXT_BYTES = 4096 };

/* Reads what fits of a file, and a NUL after it; returns how much, 0 when it cannot be had. */
size_t proc_read(const char *path, char *text, size_t size);

enum {
    STAT_STATE = 3,
    STAT_PARENT = 4,
    STAT_USER = 14,
    STAT_SYSTEM = 15,
    STAT_THREADS = 20,
    STAT_STARTED = 22,
    STAT_RESIDENT = 24,
};

/* Field `number` of a stat line, from the state on: the name before it may hold anything. */
const char *proc_stat_field(const char *text, int number);

uint64_t proc_stat_number(const char *text, int number);

/* The first number of the line that `label` ("\nUid:") begins in a status file; 0 when there is none. */
uint64_t proc_status_number(const char *text, const char *label);

#endif
