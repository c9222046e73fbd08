#define _GNU_SOURCE
#include "frames.h"

#include "cage.h"
#include "zygote.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = 4, ROOM_MIN = 16 << 10, KEPT_MAX = 1 << 20, AT_ONCE = 8 << 10 };

static unsigned char *room;
static size_t capacity, held, used; /* bytes that are there; of these, what was given out before */
static unsigned char displaced;     /* what stands where the NUL is, the first of the frame after */

static void write_all(const unsigned char *from, size_t bytes)
{
    while (bytes) {
        ssize_t done = write(CELL_SOCKET, from, bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            _exit(0);
        from += done;
        bytes -= (size_t)done;
    }
}

static void put_length(unsigned char *to, size_t bytes)
{
    for (int i = 0; i < HEAD; i++)
        to[i] = (unsigned char)(bytes >> 8 * i);
}

bool frame_send(const char *text, size_t bytes)
{
    unsigned char together[HEAD + AT_ONCE];
    if (bytes > FRAME_BYTES_MAX)
        return false;
    put_length(together, bytes);
    if (bytes <= AT_ONCE) {
        memcpy(together + HEAD, text, bytes);
        write_all(together, HEAD + bytes);
    } else {
        write_all(together, HEAD);
        write_all((const unsigned char *)text, bytes);
    }
    return true;
}

/* Makes room for a frame of so many bytes after its length, and a NUL. */
static void grow(size_t bytes)
{
    size_t needed = HEAD + bytes + 1;
    if (needed < ROOM_MIN)
        needed = ROOM_MIN;
    if (needed <= capacity)
        return;
    unsigned char *more = realloc(room, needed);
    if (!more)
        _exit(EXIT_NO_MEMORY);
    room = more;
    capacity = needed;
}

/* Lets go of what was given out, and of the room of a large one. */
static void forget_last(void)
{
    room[used] = displaced;
    held -= used;
    memmove(room, room + used, held);
    used = 0;
    if (capacity > KEPT_MAX && held < ROOM_MIN) {
        unsigned char *less = realloc(room, ROOM_MIN);
        if (less) {
            room = less;
            capacity = ROOM_MIN;
        }
    }
}

static size_t length_of_next(void)
{
    size_t bytes = 0;
    for (int i = 0; i < HEAD; i++)
        bytes |= (size_t)room[i] << 8 * i;
    if (bytes > FRAME_BYTES_MAX)
        _exit(EXIT_BAD_FRAME);
    return bytes;
}

static bool is_there(int wait_ms)
{
    struct pollfd one = {.fd = CELL_SOCKET, .events = POLLIN};
    int ready;
    do
        ready = poll(&one, 1, wait_ms);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

const char *frame_receive(int wait_ms, size_t *bytes)
{
    if (used)
        forget_last();
    size_t length = 0;
    for (;;) {
        if (held >= HEAD) {
            length = length_of_next();
            if (held >= HEAD + length)
                break;
        }
        grow(length);
        if (wait_ms >= 0 && !is_there(wait_ms))
            return NULL;
        /* One byte stays free for the NUL of a frame that ends where the room does. */
        ssize_t got = read(CELL_SOCKET, room + held, capacity - held - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            _exit(0);
        held += (size_t)got;
    }
    used = HEAD + length;
    *bytes = length;
    displaced = room[used];
    room[used] = 0;
    return (const char *)room + HEAD;
}
