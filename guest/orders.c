#include "orders.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t *take(struct order *order, size_t length)
{
    const uint8_t *from = order->at;
    if (order->bad || order->left < length) {
        order->bad = true;
        return NULL;
    }
    order->at += length;
    order->left -= length;
    return from;
}

uint64_t order_u64(struct order *order)
{
    const uint8_t *from = take(order, 8);
    uint64_t value = 0;
    for (int i = 0; from && i < 8; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

uint32_t order_u32(struct order *order)
{
    const uint8_t *from = take(order, 4);
    uint32_t value = 0;
    for (int i = 0; from && i < 4; i++)
        value |= (uint32_t)from[i] << (8 * i);
    return value;
}

const uint8_t *order_bytes(struct order *order, size_t *length)
{
    *length = order_u32(order);
    const uint8_t *from = take(order, *length);
    if (!from)
        *length = 0;
    return from;
}

char *order_text(struct order *order)
{
    size_t length;
    const uint8_t *from = order_bytes(order, &length);
    if (!from || memchr(from, 0, length)) {
        order->bad = true;
        return NULL;
    }
    char *text = malloc(length + 1);
    if (!text)
        return NULL;
    memcpy(text, from, length);
    text[length] = 0;
    return text;
}
