/*
 * libFuzzer target: whatever the host's end sends, in whatever pieces, frames come out as they were put in, each
 * ended by a NUL of ours; what is no frame ends the cell by the code for it. What is sent is read back the same.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t fuzz_read(int descriptor, void *to, size_t most);
static ssize_t fuzz_write(int descriptor, const void *from, size_t bytes);
static int fuzz_poll(struct pollfd *polled, nfds_t count, int wait_ms);
static _Noreturn void fuzz_exit(int code);

#define read fuzz_read
#define write fuzz_write
#define poll fuzz_poll
#define _exit fuzz_exit
#include "frames.c"
#undef read
#undef write
#undef poll
#undef _exit

enum { PIECES = 8, WRITTEN_MAX = 128 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const uint8_t *stream, *piece_sizes;
static size_t stream_bytes, taken, turns;
static unsigned char written[WRITTEN_MAX];
static size_t written_bytes;
static jmp_buf ended;
static int exit_code;

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The size of the next piece, now and then an interruption (0). */
static size_t next_piece(void)
{
    return piece_sizes[turns++ % PIECES];
}

static ssize_t fuzz_read(int descriptor, void *to, size_t most)
{
    check(descriptor == CELL_SOCKET && most);
    size_t piece = next_piece(), left = stream_bytes - taken;
    if (!piece && turns % PIECES) {
        errno = EINTR;
        return -1;
    }
    piece = piece * piece + 1;
    if (piece > most)
        piece = most;
    if (piece > left)
        piece = left;
    memcpy(to, stream + taken, piece);
    taken += piece;
    return (ssize_t)piece;
}

static ssize_t fuzz_write(int descriptor, const void *from, size_t bytes)
{
    check(descriptor == CELL_SOCKET && bytes);
    size_t piece = next_piece() * 97 + 1;
    if (piece > bytes)
        piece = bytes;
    check(written_bytes + piece <= WRITTEN_MAX);
    memcpy(written + written_bytes, from, piece);
    written_bytes += piece;
    return (ssize_t)piece;
}

/* Nothing is there on every fourth look. */
static int fuzz_poll(struct pollfd *polled, nfds_t count, int wait_ms)
{
    check(polled->fd == CELL_SOCKET && count == 1 && wait_ms >= 0);
    return next_piece() % 4 != 0;
}

static _Noreturn void fuzz_exit(int code)
{
    exit_code = code;
    longjmp(ended, 1);
}

static size_t length_at(size_t at)
{
    const uint8_t *head = stream + at;
    return head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
}

static void receive_all(void)
{
    static size_t at; /* what longjmp leaves alone */
    static unsigned misses;
    at = misses = 0;
    if (!setjmp(ended)) {
        while (misses < 64) {
            size_t length = 0;
            const char *text = frame_receive(misses % 2 ? -1 : 0, &length);
            if (!text) {
                misses++;
                continue;
            }
            check(at + HEAD + length <= taken && length == length_at(at) && length <= FRAME_BYTES_MAX);
            check(!memcmp(text, stream + at + HEAD, length) && text[length] == 0);
            at += HEAD + length;
        }
        return;
    }
    size_t left = stream_bytes - at;
    if (exit_code == EXIT_BAD_FRAME)
        check(left >= HEAD && length_at(at) > FRAME_BYTES_MAX);
    else
        check(exit_code == 0 && taken == stream_bytes && (left < HEAD || length_at(at) > left - HEAD));
}

static void send_all(void)
{
    size_t bytes = stream_bytes < WRITTEN_MAX - HEAD ? stream_bytes : WRITTEN_MAX - HEAD;
    written_bytes = 0;
    check(frame_send((const char *)stream, bytes));
    check(written_bytes == HEAD + bytes && !memcmp(written + HEAD, stream, bytes));
    check((written[0] | (size_t)written[1] << 8 | (size_t)written[2] << 16 | (size_t)written[3] << 24) == bytes);
    check(!frame_send((const char *)stream, FRAME_BYTES_MAX + 1UL) && written_bytes == HEAD + bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < PIECES)
        return 0;
    piece_sizes = bytes;
    stream = bytes + PIECES;
    stream_bytes = size - PIECES;
    taken = turns = 0;
    receive_all();
    free(room);
    room = NULL;
    capacity = held = used = 0;
    send_all();
    return 0;
}
