/* The agent's event loop: descriptors that become ready, moments that come, memory freed when it is safe. */
#ifndef HANDIWORK_EVENTS_H
#define HANDIWORK_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct watch;
typedef void ready_call(struct watch *watch, uint32_t events);

/* A watched descriptor. Its call may come once more than the descriptor is ready: reads must not block. */
struct watch {
    int fd; /* -1: closed */
    uint32_t wanted;
    ready_call *ready;
};

struct timer;
typedef void fire_call(struct timer *timer);

struct timer {
    uint64_t at_ms;
    fire_call *fire;
    bool armed;
    struct timer *next, *previous;
};

void events_open(void);

/* Monotonic milliseconds. */
uint64_t events_now_ms(void);

/* Waits for events (not at all when `idle` is false), and makes the calls that are due. */
void events_turn(bool idle);

/* Takes ownership of `fd`, with nothing wanted yet. */
void watch_open(struct watch *watch, int fd, ready_call *ready);

/* Wanting nothing takes the descriptor out of the set, so that a hung-up peer cannot spin the loop. */
void watch_want(struct watch *watch, uint32_t events);

/* Closes the descriptor; harmless when it is closed. The watch's memory must live until the turn ends. */
void watch_close(struct watch *watch);

void timer_arm(struct timer *timer, uint64_t after_ms, fire_call *fire);
void timer_disarm(struct timer *timer);

/* Frees `memory` when the turn is over: calls of this turn may still point into it. */
void events_free_later(void *memory);

#endif
