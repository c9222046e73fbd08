/* How the program gives up: one line on stderr and a fixed exit code. */
#ifndef HANDIWORK_CELL_FATAL_H
#define HANDIWORK_CELL_FATAL_H

enum { EXIT_START_FAILED = 125, EXIT_BAD_USAGE = 126 };

/* Prints `handiwork-cell: STEP: the text of errno` and exits 125. */
_Noreturn void fatal(const char *step);

/* Prints `handiwork-cell: STEP: REASON` and exits with `code`. */
_Noreturn void fatal_because(const char *step, const char *reason, int code);

#endif
