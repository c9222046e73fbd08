#include "fatal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void fatal_because(const char *step, const char *reason, int code)
{
    dprintf(STDERR_FILENO, "handiwork-cell: %s: %s\n", step, reason);
    _exit(code);
}

void fatal(const char *step)
{
    fatal_because(step, strerror(errno), EXIT_START_FAILED);
}
