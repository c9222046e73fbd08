/* The codec of the exit bridge: many flows over one stream. PROTOCOL.md, section 4. */
#ifndef HANDIWORK_MUX_H
#define HANDIWORK_MUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MUX_HEAD = 8,
    MUX_PAYLOAD_MAX = 32760, /* with its head it is what a virtio port takes in one write */
    MUX_WINDOW = 65536,      /* bytes that a flow may have under way in each direction */
};

enum mux_kind { MUX_OPEN = 1, MUX_DATA, MUX_END, MUX_RESET, MUX_CREDIT, MUX_HUSH, MUX_WAKE };

enum mux_result { MUX_INCOMPLETE, MUX_FRAME, MUX_REJECTED };

/* One frame; `payload` points into the bytes that were decoded. */
struct mux_frame {
    uint32_t flow;
    enum mux_kind kind;
    const uint8_t *payload;
    size_t length;
    uint32_t credit; /* of MUX_CREDIT */
};

/* Decodes the first frame of `length` bytes; on MUX_FRAME `*used` tells how many it took. */
enum mux_result mux_decode(const uint8_t *bytes, size_t length, struct mux_frame *frame, size_t *used);

/* Writes the head of a frame with `length` bytes of payload to follow. */
void mux_head(uint8_t *to, uint32_t flow, enum mux_kind kind, size_t length);

/* Writes a whole frame of MUX_CREDIT, MUX_HEAD + 4 bytes. */
void mux_credit(uint8_t *to, uint32_t flow, uint32_t bytes);

#endif
