/* For tests: hex of a stream of bridge frames in, what the codec makes of it out, as JSON. */
#include "mux.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 1 << 18 };

static const char *const names[] = {"", "OPEN", "DATA", "END", "RESET", "CREDIT", "HUSH", "WAKE"};

static int hex_digit(int c)
{
    return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

static size_t read_hex(uint8_t *to)
{
    int c, high = -1;
    size_t length = 0;
    while ((c = getchar()) != EOF && length < ROOM) {
        int digit = hex_digit(c);
        if (digit < 0)
            continue;
        if (high < 0) {
            high = digit;
            continue;
        }
        to[length++] = (uint8_t)(high << 4 | digit);
        high = -1;
    }
    return length;
}

static void print_frame(const struct mux_frame *frame, bool first)
{
    printf("%s{\"flow\": %u, \"kind\": \"%s\", \"data\": \"", first ? "" : ", ", frame->flow,
           names[frame->kind]);
    for (size_t i = 0; frame->kind == MUX_DATA && i < frame->length; i++)
        printf("\\u%04x", frame->payload[i]);
    printf("\", \"credit\": %u}", frame->credit);
}

int main(void)
{
    static const char *const ends[] = {"incomplete", "", "rejected"};
    uint8_t *bytes = malloc(ROOM);
    if (!bytes)
        return 1;
    size_t length = read_hex(bytes), at = 0, used = 0;
    struct mux_frame frame;
    enum mux_result result;
    /* In memory of its own size, so that a byte too far is seen. */
    uint8_t *exact = malloc(length + 1);
    if (!exact)
        return 1;
    for (size_t i = 0; i < length; i++)
        exact[i] = bytes[i];
    printf("{\"frames\": [");
    while ((result = mux_decode(exact + at, length - at, &frame, &used)) == MUX_FRAME) {
        print_frame(&frame, at == 0);
        at += used;
    }
    printf("], \"ends\": \"%s\"}\n", result == MUX_INCOMPLETE && at == length ? "clean" : ends[result]);
    free(exact);
    free(bytes);
    return 0;
}
