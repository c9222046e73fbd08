/*
 * A test program around the codec: `decode agent|host` reads a stream of frames, in hex, from its input and
 * prints what it holds as JSON, after checking that each frame encodes to the same bytes again.
 * Strings are printed one character a byte (Latin-1), so that every byte has a form.
 */
#include "channel.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t stream[1 << 20];

static size_t read_hex(void)
{
    size_t size = 0;
    unsigned byte;
    while (size < sizeof stream && scanf("%2x", &byte) == 1)
        stream[size++] = (uint8_t)byte;
    return size;
}

static void print_text(const struct value *value)
{
    putchar('"');
    for (uint32_t i = 0; i < value->length; i++) {
        uint8_t byte = value->bytes[i];
        if (byte < 32 || byte > 126 || byte == '"' || byte == '\\')
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

static void print_list(const struct value *value)
{
    struct cursor rest = {value->bytes, value->length};
    struct value str;
    putchar('[');
    for (uint32_t i = 0; i < value->count && channel_next_str(&rest, &str); i++) {
        if (i)
            putchar(',');
        print_text(&str);
    }
    putchar(']');
}

static void print_group(const struct layout *layout, const struct value *values)
{
    putchar('{');
    for (size_t i = 0; i < layout->count; i++) {
        enum field_type type = layout->fields[i].type;
        printf("%s\"%s\":", i ? "," : "", layout->fields[i].name);
        if (type == FIELD_STR || type == FIELD_REST)
            print_text(&values[i]);
        else if (type == FIELD_STRS)
            print_list(&values[i]);
        else if (type == FIELD_I32 || type == FIELD_I64)
            printf("%" PRId64, (int64_t)values[i].number);
        else
            printf("%" PRIu64, values[i].number);
    }
    putchar('}');
}

static void print_message(const struct message *message)
{
    static struct frame again;
    const struct layout *layout = message->layout;
    struct cursor rest = {message->payload, message->length};
    struct value values[FIELDS_MAX];
    printf("{\"id\":%" PRIu32 ",\"kind\":\"%s\",\"groups\":[", message->id, layout->name);
    channel_begin(&again, layout->kind, message->id);
    bool first = true;
    do {
        if (!channel_fields(layout, &rest, values) || !channel_append(&again, layout, values))
            abort();
        if (!first)
            putchar(',');
        first = false;
        print_group(layout, values);
    } while (rest.left);
    printf("]}");
    if (again.length != FRAME_HEAD + (size_t)message->length ||
        memcmp(again.bytes + FRAME_HEAD, message->payload, message->length))
        abort();
}

int main(int argc, char **argv)
{
    if (argc != 2 || (strcmp(argv[1], "agent") && strcmp(argv[1], "host"))) {
        fprintf(stderr, "usage: decode agent|host < HEX\n");
        return 2;
    }
    bool to_agent = !strcmp(argv[1], "agent");
    size_t size = read_hex(), at = 0, used = 0;
    struct message message;
    enum decoded result = INCOMPLETE;
    printf("{\"frames\":[");
    while (at < size) {
        result = channel_decode(stream + at, size - at, to_agent, &message, &used);
        if (result != DECODED)
            break;
        if (at)
            putchar(',');
        print_message(&message);
        at += used;
    }
    const char *end = at == size ? "clean" : result == REJECTED ? "rejected" : "incomplete";
    printf("],\"ends\":\"%s\"}\n", end);
    return 0;
}
