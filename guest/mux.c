#include "mux.h"

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static bool fits(uint32_t flow, uint8_t kind, size_t length)
{
    switch (kind) {
    case MUX_DATA: return flow && length && length <= MUX_PAYLOAD_MAX;
    case MUX_CREDIT: return flow && length == 4;
    case MUX_OPEN:
    case MUX_END:
    case MUX_RESET: return flow && !length;
    case MUX_HUSH:
    case MUX_WAKE: return !flow && !length;
    default: return false;
    }
}

enum mux_result mux_decode(const uint8_t *bytes, size_t length, struct mux_frame *frame, size_t *used)
{
    if (length < MUX_HEAD)
        return MUX_INCOMPLETE;
    uint32_t flow = get32(bytes);
    size_t size = (size_t)(bytes[4] | bytes[5] << 8);
    if (bytes[7] || !fits(flow, bytes[6], size))
        return MUX_REJECTED;
    if (length - MUX_HEAD < size)
        return MUX_INCOMPLETE;
    *frame = (struct mux_frame){.flow = flow, .kind = bytes[6], .payload = bytes + MUX_HEAD, .length = size};
    if (frame->kind == MUX_CREDIT) {
        frame->credit = get32(frame->payload);
        if (!frame->credit || frame->credit > MUX_WINDOW)
            return MUX_REJECTED;
    }
    *used = MUX_HEAD + size;
    return MUX_FRAME;
}

void mux_head(uint8_t *to, uint32_t flow, enum mux_kind kind, size_t length)
{
    put32(to, flow);
    to[4] = (uint8_t)length;
    to[5] = (uint8_t)(length >> 8);
    to[6] = (uint8_t)kind;
    to[7] = 0;
}

void mux_credit(uint8_t *to, uint32_t flow, uint32_t bytes)
{
    mux_head(to, flow, MUX_CREDIT, 4);
    put32(to + MUX_HEAD, bytes);
}
