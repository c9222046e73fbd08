/* What the host orders pid 1 of a virtual machine to do. PROTOCOL.md, section 5. */
#ifndef HANDIWORK_ORDERS_H
#define HANDIWORK_ORDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum order_kind { ORDER_START = 1, ORDER_RESUME, ORDER_HOLD, ORDER_CLAIM };
enum { ORDER_HEAD = 5, ORDER_MAX = 4 << 20, ANSWER_READY = 64, ANSWER_ENDED, ANSWER_BUSY };

/* A reader of what is left of an order. */
struct order {
    const uint8_t *at;
    size_t left;
    bool bad; /* more was asked for than is there */
};

uint32_t order_u32(struct order *order);
uint64_t order_u64(struct order *order);

/* Bytes with their length before them; they stay in the order. */
const uint8_t *order_bytes(struct order *order, size_t *length);

/* The same as text of its own, with its end; NULL when it is none. */
char *order_text(struct order *order);

#endif
