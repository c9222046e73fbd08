/* The libFuzzer target of the exit bridge's codec: any bytes are frames, too few, or rejected. */
#include "mux.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct mux_frame frame;
    size_t at = 0, used = 0;
    uint8_t again[MUX_HEAD + 4];
    while (mux_decode(bytes + at, length - at, &frame, &used) == MUX_FRAME) {
        if (used < MUX_HEAD || used > length - at || frame.length > MUX_PAYLOAD_MAX)
            abort();
        if (frame.kind == MUX_CREDIT)
            mux_credit(again, frame.flow, frame.credit);
        else
            mux_head(again, frame.flow, frame.kind, frame.length);
        if (memcmp(again, bytes + at, frame.kind == MUX_CREDIT ? MUX_HEAD + 4 : MUX_HEAD))
            abort();
        at += used;
    }
    return 0;
}
