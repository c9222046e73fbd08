/* Requests to the kernel's network configuration, built attribute by attribute and sent in one batch. */
#ifndef HANDIWORK_NETLINK_H
#define HANDIWORK_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BATCH_BYTES = 16384 };

struct batch {
    int fd;
    const char *step;   /* named when the kernel refuses */
    unsigned unanswered;
    size_t length;
    size_t message;     /* where the message under construction starts */
    _Alignas(8) uint8_t bytes[BATCH_BYTES];
};

/* Opens a socket of a netlink protocol. */
void batch_open(struct batch *batch, int protocol, const char *step);

/* Starts a message with its fixed head; `answered` asks for an acknowledgement. */
void batch_message(struct batch *batch, unsigned type, unsigned flags, bool answered, const void *head,
                   size_t size);

void batch_attribute(struct batch *batch, unsigned type, const void *data, size_t size);
void batch_string(struct batch *batch, unsigned type, const char *text);
void batch_be32(struct batch *batch, unsigned type, uint32_t number);

/* Opens a nested attribute; returns what batch_nest_end wants. */
size_t batch_nest(struct batch *batch, unsigned type);
void batch_nest_end(struct batch *batch, size_t nest);

/* Sends everything, waits for every acknowledgement and closes. Any refusal ends the program. */
void batch_commit(struct batch *batch);

#endif
