/*
 * Frames on the cell's one socket: four bytes of length, least first, and so many of JSON text. Blocking.
 *
 * A cell that cannot speak to its host any more ends.
 */
#ifndef HANDIWORK_CELL_FRAMES_H
#define HANDIWORK_CELL_FRAMES_H

#include <stdbool.h>
#include <stddef.h>

enum { FRAME_BYTES_MAX = 32 << 20 };

/* Sends one; false when it is larger than FRAME_BYTES_MAX, and then nothing was sent. */
bool frame_send(const char *text, size_t bytes);

/*
 * Returns the next one, ended by a NUL that is not counted, valid until the next call. Waits for it at most
 * `wait_ms`, forever when negative; NULL when none came.
 */
const char *frame_receive(int wait_ms, size_t *bytes);

#endif
