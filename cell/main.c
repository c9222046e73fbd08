#include "cage.h"
#include "fatal.h"
#include "javascript.h"
#include "zygote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "zygote --root DIRECTORY --id NUMBER --memory-mib NUMBER --data-mib NUMBER";

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value > UINT32_MAX)
        fatal_because("usage", usage, EXIT_BAD_USAGE);
    return value;
}

/* Descriptor 3 is the control socket, 4 the cage's filter. No file is opened once the cage is closed. */
int main(int argc, char **argv)
{
    struct cage cage = {.filter = CONTROL_SOCKET + 1};
    uint64_t memory_mib = 0;
    if (argc < 2 || argc % 2 || strcmp(argv[1], "zygote"))
        fatal_because("usage", usage, EXIT_BAD_USAGE);
    for (int i = 2; i < argc; i += 2) {
        if (!strcmp(argv[i], "--root"))
            cage.root = argv[i + 1];
        else if (!strcmp(argv[i], "--id"))
            cage.id = (uid_t)number(argv[i + 1]);
        else if (!strcmp(argv[i], "--memory-mib"))
            memory_mib = number(argv[i + 1]);
        else if (!strcmp(argv[i], "--data-mib"))
            cage.data_bytes = number(argv[i + 1]) << 20;
        else
            fatal_because("usage", usage, EXIT_BAD_USAGE);
    }
    if (!cage.root || !memory_mib || !cage.data_bytes)
        fatal_because("usage", usage, EXIT_BAD_USAGE);
    unsigned holds = cage_zygote(&cage);
    javascript_warm(memory_mib << 20);
    zygote_serve(&javascript, holds);
}
