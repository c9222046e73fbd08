/*
 * The channel's codec: bytes to messages and back. Pure: no input, no output, no allocation, no state.
 *
 * One table describes every frame of both directions (channel_layouts, in channel.c); decoding and
 * encoding only follow it. Decoded values point into the bytes they were decoded from.
 */
#ifndef HANDIWORK_CHANNEL_H
#define HANDIWORK_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTOCOL_VERSION = 1,
    FRAME_HEAD = 12,
    PAYLOAD_MAX = 65536,
    FIELDS_MAX = 12,
    WINDOW_BYTES = 262144, /* bytes of streams a side may send for a request before it needs CREDIT */
};

enum kind {
    KIND_EXEC = 1,
    KIND_STDIN = 2,
    KIND_SIGNAL = 3,
    KIND_CREDIT = 4,
    KIND_READ = 5,
    KIND_WRITE = 6,
    KIND_DATA = 7,
    KIND_STAT = 8,
    KIND_LIST = 9,
    KIND_MKDIR = 10,
    KIND_REMOVE = 11,
    KIND_MOVE = 12,
    KIND_REALPATH = 13,
    KIND_PING = 14,
    KIND_CANCEL = 15,
    KIND_FREEZE = 16,
    KIND_TERMINAL = 17,
    KIND_RESIZE = 18,
    KIND_CONNECT = 19,
    KIND_PROCESSES = 20,
    KIND_WATCH = 21,
    KIND_KILLS = 22,

    KIND_HELLO = 64,
    KIND_STARTED = 65,
    KIND_STDOUT = 66,
    KIND_STDERR = 67,
    KIND_EXIT = 68,
    KIND_GRANT = 69, /* CREDIT, from the agent */
    KIND_BODY = 70,  /* DATA, from the agent */
    KIND_END = 71,
    KIND_INFO = 72,
    KIND_ENTRY = 73,
    KIND_NAME = 74,
    KIND_OK = 75,
    KIND_FAILED = 76,
    KIND_FROZEN = 77,
    KIND_CONNECTED = 78,
    KIND_FINISHED = 79,
    KIND_PROCESS = 80,
    KIND_LISTENER = 81,
    KIND_WATCHED = 82,
    KIND_EVENT = 83,
};

/* Positions of the fields of the frames that the agent reads. */
enum { EXEC_FLAGS, EXEC_TIMEOUT_MS, EXEC_OUTPUT_LIMIT, EXEC_UID, EXEC_GID, EXEC_CWD, EXEC_ARGV, EXEC_ENV };
enum { TERMINAL_COLUMNS = EXEC_ENV + 1, TERMINAL_ROWS }; /* after the fields of EXEC */
enum { RESIZE_COLUMNS, RESIZE_ROWS };
enum { READ_OFFSET, READ_LIMIT, READ_PATH };
enum { WRITE_MODE, WRITE_FLAGS, WRITE_UID, WRITE_GID, WRITE_PATH };
enum { STAT_FLAGS, STAT_PATH };
enum { LIST_LIMIT, LIST_PATH };
enum { MKDIR_MODE, MKDIR_FLAGS, MKDIR_UID, MKDIR_GID, MKDIR_PATH };
enum { REMOVE_FLAGS, REMOVE_PATH };
enum { MOVE_FROM, MOVE_TO };
enum { CONNECT_FAMILY, CONNECT_PORT };
enum { WATCH_FLAGS, WATCH_PATH };

enum {
    EXEC_STDIN_OPEN = 1,
    EXEC_MERGE_STDERR = 2,

    WRITE_PARENTS = 1,
    WRITE_APPEND = 2,
    WRITE_EXCLUSIVE = 4,

    STAT_FOLLOW = 1,
    MKDIR_PARENTS = 1,
    REMOVE_RECURSIVE = 1,
    WATCH_RECURSIVE = 1,

    EXIT_TIMED_OUT = 1,
    EXIT_STDOUT_CUT = 2,
    EXIT_STDERR_CUT = 4,
    EXIT_OUT_OF_MEMORY = 8,
};

enum {
    EVENT_CREATED = 1,
    EVENT_CHANGED = 2,
    EVENT_REMOVED = 3,
    EVENT_MOVED_AWAY = 4,
    EVENT_MOVED_HERE = 5,
    EVENT_ATTRIBUTES = 6,
    EVENT_OVERFLOW = 7,  /* some were lost */
    EVENT_UNWATCHED = 8, /* a directory that nothing will be told of */
};

enum field_type {
    FIELD_U32,
    FIELD_I32,
    FIELD_U64,
    FIELD_I64,
    FIELD_STR,  /* u32 length and bytes */
    FIELD_STRS, /* u32 count and as many str */
    FIELD_REST, /* the bytes that remain */
};

struct field {
    const char *name;
    enum field_type type;
};

struct layout {
    uint8_t kind;
    bool to_agent;
    bool repeats; /* the fields may follow one another several times in a frame */
    const char *name;
    size_t count;
    struct field fields[FIELDS_MAX];
};

struct value {
    uint64_t number;      /* signed fields are sign-extended */
    const uint8_t *bytes; /* str, rest; for strs the first encoded str */
    uint32_t length;      /* of bytes */
    uint32_t count;       /* of strs */
};

struct message {
    const struct layout *layout;
    uint32_t id;
    const uint8_t *payload;
    uint32_t length;
    struct value values[FIELDS_MAX]; /* of the first group where the layout repeats */
};

struct cursor {
    const uint8_t *at;
    size_t left;
};

struct frame {
    size_t length; /* 0 after a value did not fit */
    uint8_t bytes[FRAME_HEAD + PAYLOAD_MAX];
};

enum decoded { DECODED, INCOMPLETE, REJECTED };

/* The layout of `kind` in that direction; NULL when there is none. */
const struct layout *channel_layout(uint32_t kind, bool to_agent);

/* Decodes the first frame of `bytes`; on DECODED `*used` is its size. */
enum decoded channel_decode(const uint8_t *bytes, size_t length, bool to_agent, struct message *message,
                            size_t *used);

/* Reads one group of fields from `from`; false when they are not there. */
bool channel_fields(const struct layout *layout, struct cursor *from, struct value *values);

/* Reads the next str of a FIELD_STRS value that `from` was set to. */
bool channel_next_str(struct cursor *from, struct value *str);

/* Writes a whole frame; false when it exceeds the payload limit. */
bool channel_encode(struct frame *frame, enum kind kind, uint32_t id, const struct value *values);

/* The same in steps, for frames whose fields repeat; a group that does not fit leaves the frame as it was. */
void channel_begin(struct frame *frame, enum kind kind, uint32_t id);
bool channel_append(struct frame *frame, const struct layout *layout, const struct value *values);

/* Writes the twelve bytes of a head. */
void channel_head(uint8_t *head, enum kind kind, uint32_t id, uint32_t length);

#endif
