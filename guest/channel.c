#include "channel.h"

#include <string.h>

#define U32(name) {name, FIELD_U32}
#define I32(name) {name, FIELD_I32}
#define U64(name) {name, FIELD_U64}
#define I64(name) {name, FIELD_I64}
#define STR(name) {name, FIELD_STR}
#define STRS(name) {name, FIELD_STRS}
#define REST(name) {name, FIELD_REST}
#define FIELDS(...) sizeof((struct field[]){__VA_ARGS__}) / sizeof(struct field), {__VA_ARGS__}
#define NO_FIELDS 0, {{NULL, FIELD_U32}}
#define INFO_FIELDS U32("kind"), U32("mode"), U64("size"), I64("mtime_ns"), U32("uid"), U32("gid")
#define EXEC_FIELDS                                                                                        \
    U32("flags"), U32("timeout_ms"), U64("output_limit"), U32("uid"), U32("gid"), STR("cwd"),              \
        STRS("argv"), STRS("env")

static const struct layout layouts[] = {
    {KIND_EXEC, true, false, "EXEC", FIELDS(EXEC_FIELDS)},
    {KIND_STDIN, true, false, "STDIN", FIELDS(REST("data"))},
    {KIND_SIGNAL, true, false, "SIGNAL", FIELDS(I32("signal"))},
    {KIND_CREDIT, true, false, "CREDIT", FIELDS(U32("bytes"))},
    {KIND_READ, true, false, "READ", FIELDS(U64("offset"), U64("limit"), STR("path"))},
    {KIND_WRITE, true, false, "WRITE",
     FIELDS(U32("mode"), U32("flags"), U32("uid"), U32("gid"), STR("path"))},
    {KIND_DATA, true, false, "DATA", FIELDS(REST("data"))},
    {KIND_STAT, true, false, "STAT", FIELDS(U32("flags"), STR("path"))},
    {KIND_LIST, true, false, "LIST", FIELDS(U32("limit"), STR("path"))},
    {KIND_MKDIR, true, false, "MKDIR",
     FIELDS(U32("mode"), U32("flags"), U32("uid"), U32("gid"), STR("path"))},
    {KIND_REMOVE, true, false, "REMOVE", FIELDS(U32("flags"), STR("path"))},
    {KIND_MOVE, true, false, "MOVE", FIELDS(STR("from"), STR("to"))},
    {KIND_REALPATH, true, false, "REALPATH", FIELDS(STR("path"))},
    {KIND_PING, true, false, "PING", NO_FIELDS},
    {KIND_CANCEL, true, false, "CANCEL", NO_FIELDS},
    {KIND_FREEZE, true, false, "FREEZE", NO_FIELDS},
    {KIND_TERMINAL, true, false, "TERMINAL", FIELDS(EXEC_FIELDS, U32("columns"), U32("rows"))},
    {KIND_RESIZE, true, false, "RESIZE", FIELDS(U32("columns"), U32("rows"))},
    {KIND_CONNECT, true, false, "CONNECT", FIELDS(U32("family"), U32("port"))},
    {KIND_PROCESSES, true, false, "PROCESSES", FIELDS(U32("limit"))},
    {KIND_WATCH, true, false, "WATCH", FIELDS(U32("flags"), STR("path"))},
    {KIND_KILLS, true, false, "KILLS", NO_FIELDS},

    {KIND_HELLO, false, false, "HELLO", FIELDS(U32("version"), U32("pid"))},
    {KIND_STARTED, false, false, "STARTED", FIELDS(U32("pid"))},
    {KIND_STDOUT, false, false, "STDOUT", FIELDS(REST("data"))},
    {KIND_STDERR, false, false, "STDERR", FIELDS(REST("data"))},
    {KIND_EXIT, false, false, "EXIT",
     FIELDS(I32("code"), U32("flags"), U64("user_us"), U64("system_us"), U64("max_rss_kib"))},
    {KIND_GRANT, false, false, "CREDIT", FIELDS(U32("bytes"))},
    {KIND_BODY, false, false, "DATA", FIELDS(REST("data"))},
    {KIND_END, false, false, "END", FIELDS(U64("total"))},
    {KIND_INFO, false, false, "INFO", FIELDS(INFO_FIELDS)},
    {KIND_ENTRY, false, true, "ENTRY", FIELDS(INFO_FIELDS, STR("name"))},
    {KIND_NAME, false, false, "NAME", FIELDS(STR("name"))},
    {KIND_OK, false, false, "OK", NO_FIELDS},
    {KIND_FAILED, false, false, "FAILED", FIELDS(U32("errno"), STR("what"))},
    {KIND_FROZEN, false, false, "FROZEN", FIELDS(U32("processes"))},
    {KIND_CONNECTED, false, false, "CONNECTED", FIELDS(U32("family"))},
    {KIND_FINISHED, false, false, "FINISHED", NO_FIELDS},
    {KIND_PROCESS, false, true, "PROCESS",
     FIELDS(U32("pid"), U32("parent"), U32("uid"), U32("threads"), U32("state"), U64("tree"), U64("cpu_us"),
            U64("rss_kib"), U64("age_ms"), STR("command"))},
    {KIND_LISTENER, false, true, "LISTENER",
     FIELDS(U32("pid"), U32("uid"), U32("family"), U32("port"), STR("address"))},
    {KIND_WATCHED, false, false, "WATCHED", FIELDS(U32("directories"))},
    {KIND_EVENT, false, true, "EVENT", FIELDS(U32("what"), U32("directory"), STR("path"))},
};

const struct layout *channel_layout(uint32_t kind, bool to_agent)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i].kind == kind && layouts[i].to_agent == to_agent)
            return &layouts[i];
    return NULL;
}

static uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store_u32(uint8_t *at, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(number >> (8 * i));
}

static bool take_bytes(struct cursor *from, size_t size, const uint8_t **bytes)
{
    if (from->left < size)
        return false;
    *bytes = from->at;
    from->at += size;
    from->left -= size;
    return true;
}

static bool take_u32(struct cursor *from, uint32_t *number)
{
    const uint8_t *bytes;
    if (!take_bytes(from, 4, &bytes))
        return false;
    *number = load_u32(bytes);
    return true;
}

static bool take_str(struct cursor *from, struct value *value)
{
    return take_u32(from, &value->length) && take_bytes(from, value->length, &value->bytes);
}

/* Checks every str of the list, so that channel_next_str cannot fail on a decoded message. */
static bool take_strs(struct cursor *from, struct value *value)
{
    struct value str;
    if (!take_u32(from, &value->count))
        return false;
    value->bytes = from->at;
    for (uint32_t i = 0; i < value->count; i++)
        if (!take_str(from, &str))
            return false;
    value->length = (uint32_t)(from->at - value->bytes);
    return true;
}

static bool take_number(struct cursor *from, enum field_type type, uint64_t *number)
{
    uint32_t low, high;
    if (!take_u32(from, &low))
        return false;
    if (type == FIELD_U32)
        *number = low;
    else if (type == FIELD_I32)
        *number = (uint64_t)(int64_t)(int32_t)low;
    else if (take_u32(from, &high))
        *number = (uint64_t)high << 32 | low;
    else
        return false;
    return true;
}

bool channel_fields(const struct layout *layout, struct cursor *from, struct value *values)
{
    memset(values, 0, FIELDS_MAX * sizeof *values);
    for (size_t i = 0; i < layout->count; i++) {
        enum field_type type = layout->fields[i].type;
        bool there;
        if (type == FIELD_STR) {
            there = take_str(from, &values[i]);
        } else if (type == FIELD_STRS) {
            there = take_strs(from, &values[i]);
        } else if (type == FIELD_REST) {
            values[i].length = (uint32_t)from->left;
            there = take_bytes(from, from->left, &values[i].bytes);
        } else {
            there = take_number(from, type, &values[i].number);
        }
        if (!there)
            return false;
    }
    return true;
}

bool channel_next_str(struct cursor *from, struct value *str)
{
    return take_str(from, str);
}

enum decoded channel_decode(const uint8_t *bytes, size_t length, bool to_agent, struct message *message,
                            size_t *used)
{
    struct value more[FIELDS_MAX];
    if (length < FRAME_HEAD)
        return INCOMPLETE;
    uint32_t size = load_u32(bytes);
    message->id = load_u32(bytes + 4);
    message->layout = channel_layout(bytes[8], to_agent);
    /* The head is judged before the payload is waited for: a bad one must not make us wait for bytes. */
    if (size > PAYLOAD_MAX || !message->layout || bytes[9] || bytes[10] || bytes[11])
        return REJECTED;
    if (length - FRAME_HEAD < size)
        return INCOMPLETE;
    message->payload = bytes + FRAME_HEAD;
    message->length = size;
    struct cursor rest = {message->payload, size};
    if (!channel_fields(message->layout, &rest, message->values))
        return REJECTED;
    while (message->layout->repeats && rest.left)
        if (!channel_fields(message->layout, &rest, more))
            return REJECTED;
    if (rest.left)
        return REJECTED;
    *used = FRAME_HEAD + (size_t)size;
    return DECODED;
}

static bool put_bytes(struct frame *frame, const uint8_t *bytes, size_t size)
{
    if (size > sizeof frame->bytes - frame->length)
        return false;
    if (size)
        memcpy(frame->bytes + frame->length, bytes, size);
    frame->length += size;
    return true;
}

static bool put_number(struct frame *frame, uint64_t number, size_t size)
{
    uint8_t bytes[8];
    store_u32(bytes, (uint32_t)number);
    store_u32(bytes + 4, (uint32_t)(number >> 32));
    return put_bytes(frame, bytes, size);
}

static bool put_value(struct frame *frame, enum field_type type, const struct value *value)
{
    if (type == FIELD_U32 || type == FIELD_I32)
        return put_number(frame, value->number, 4);
    if (type == FIELD_U64 || type == FIELD_I64)
        return put_number(frame, value->number, 8);
    if (type == FIELD_STR && !put_number(frame, value->length, 4))
        return false;
    if (type == FIELD_STRS && !put_number(frame, value->count, 4))
        return false;
    return put_bytes(frame, value->bytes, value->length);
}

void channel_head(uint8_t *head, enum kind kind, uint32_t id, uint32_t length)
{
    store_u32(head, length);
    store_u32(head + 4, id);
    store_u32(head + 8, (uint32_t)kind);
}

void channel_begin(struct frame *frame, enum kind kind, uint32_t id)
{
    frame->length = FRAME_HEAD;
    channel_head(frame->bytes, kind, id, 0);
}

bool channel_append(struct frame *frame, const struct layout *layout, const struct value *values)
{
    size_t before = frame->length;
    for (size_t i = 0; i < layout->count; i++)
        if (!put_value(frame, layout->fields[i].type, &values[i])) {
            frame->length = before;
            return false;
        }
    store_u32(frame->bytes, (uint32_t)(frame->length - FRAME_HEAD));
    return true;
}

bool channel_encode(struct frame *frame, enum kind kind, uint32_t id, const struct value *values)
{
    channel_begin(frame, kind, id);
    const struct layout *layout = channel_layout(kind, kind < KIND_HELLO);
    return layout && channel_append(frame, layout, values);
}
