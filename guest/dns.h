/* The capture's DNS datagrams: each question is one flow over the exit, and always gets an answer. */
#ifndef HANDIWORK_DNS_H
#define HANDIWORK_DNS_H

#include <stddef.h>
#include <stdint.h>

/* Serves questions that arrive on a bound datagram socket, which must not block. */
void dns_serve(int listener);

/*
 * Turns the question of `size` bytes into a SERVFAIL answer in place and returns its size; 0 when it is no
 * question. Pure.
 */
size_t dns_servfail(uint8_t *message, size_t size);

#endif
