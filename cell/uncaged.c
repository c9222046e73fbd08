/*
 * No cage: what build.sh --sanitize links in the place of cage.c, for a sanitizer needs files, memory and calls
 * that the cage forbids. For tests of the program alone; no cell of a guest runs so, and it says that nothing holds.
 */
#define _GNU_SOURCE
#include "cage.h"

#include "fatal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What a sanitizer reads first. A cell that ends by `_exit` has no leaks; its exit code tells of a report. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:exitcode=99:allocator_may_return_null=1:handle_abort=1";
}

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1:exitcode=99";
}

unsigned cage_zygote(const struct cage *cage)
{
    close(cage->filter);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fatal("pdeathsig");
    return 0;
}

/* Reads one byte behind a block, so that a test sees what it would see of any such bug. */
static void misbehave(void)
{
    volatile size_t past = 8;
    char *block = malloc(past);
    memset(block, 1, past);
    if (block[past])
        _exit(0);
    free(block);
}

void cage_take(int socket)
{
    if (dup2(socket, CELL_SOCKET) < 0 || syscall(SYS_close_range, CELL_SOCKET + 1, ~0U, 0))
        _exit(EXIT_START_FAILED);
}

void cage_cell(void)
{
    if (getenv("PLANTED"))
        misbehave();
}
