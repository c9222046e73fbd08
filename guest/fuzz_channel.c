/*
 * libFuzzer target: whatever the bytes, decoding ends, stays inside them, and what decodes encodes to the
 * same bytes again. Seeds: corpus/ (as binary; `build.sh --fuzz` converts them).
 */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_strs(const struct layout *layout, const struct value *values)
{
    for (size_t i = 0; i < layout->count; i++) {
        struct cursor rest = {values[i].bytes, values[i].length};
        struct value str;
        if (layout->fields[i].type != FIELD_STRS)
            continue;
        for (uint32_t n = 0; n < values[i].count; n++)
            if (!channel_next_str(&rest, &str))
                abort();
        if (rest.left)
            abort();
    }
}

static void check_message(const struct message *message)
{
    static struct frame again;
    struct cursor rest = {message->payload, message->length};
    struct value values[FIELDS_MAX];
    channel_begin(&again, message->layout->kind, message->id);
    do {
        if (!channel_fields(message->layout, &rest, values) ||
            !channel_append(&again, message->layout, values))
            abort();
        check_strs(message->layout, values);
    } while (rest.left);
    if (again.length != FRAME_HEAD + (size_t)message->length ||
        memcmp(again.bytes + FRAME_HEAD, message->payload, message->length))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 1)
        return 0;
    bool to_agent = bytes[0] & 1;
    size_t at = 1, used = 0;
    struct message message;
    while (at < size && channel_decode(bytes + at, size - at, to_agent, &message, &used) == DECODED) {
        check_message(&message);
        at += used;
    }
    return 0;
}
