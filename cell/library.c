#include "cage.h"
#include "zygote.h"

#include <stddef.h>

/*
 * For an engine that loads us and is not linked with us. Called by its one thread, from where it never returns:
 * `born` and `serve` are those of `struct engine`.
 */
_Noreturn void zygote_run(const char *root, uint32_t id, uint64_t data_bytes, uint32_t descriptors, uint32_t threads,
                          void (*born)(void), void (*serve)(void));

_Noreturn void zygote_run(const char *root, uint32_t id, uint64_t data_bytes, uint32_t descriptors, uint32_t threads,
                          void (*born)(void), void (*serve)(void))
{
    static struct engine engine;
    const struct cage cage = {.filter = CONTROL_SOCKET + 1, .root = root, .id = id, .data_bytes = data_bytes,
                              .engine_descriptors = descriptors, .threads = threads};
    engine = (struct engine){.born = born, .serve = serve};
    zygote_serve(&engine, cage_zygote(&cage));
}
