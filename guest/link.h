/* The channel's socket: whole frames in, a bounded queue of frames out that never blocks the agent. */
#ifndef HANDIWORK_LINK_H
#define HANDIWORK_LINK_H

#include "channel.h"

/* Called for each frame; what `message` points to is valid during the call only. */
typedef void frame_call(const struct message *message);

/* Called when the queue has emptied enough for producers to go on. */
typedef void drained_call(void);

void link_open(int fd, frame_call *arrived, drained_call *drained);

/* True while the host is behind: whoever can wait must produce nothing. */
bool link_busy(void);

/* Sends `length` bytes that form one or more frames, or keeps them until the host takes them. */
void link_send(const uint8_t *bytes, size_t length);

/* Ends the sandbox: the channel is the agent's life. */
_Noreturn void link_end(void);

#endif
