#include "events.h"

#include "fatal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64 };

static int set = -1;
static struct timer timers = {.next = &timers, .previous = &timers};
static void **graves;
static size_t grave_count, grave_room;

void events_open(void)
{
    set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0)
        fatal("epoll");
}

uint64_t events_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int wait_ms(void)
{
    uint64_t first = UINT64_MAX, now = events_now_ms();
    for (struct timer *timer = timers.next; timer != &timers; timer = timer->next)
        if (timer->at_ms < first)
            first = timer->at_ms;
    if (first == UINT64_MAX)
        return -1;
    if (first <= now)
        return 0;
    return first - now > 60000 ? 60000 : (int)(first - now);
}

/* Starts over after each call: a call may end any other timer. */
static void fire_due(void)
{
    uint64_t now = events_now_ms();
    struct timer *timer = timers.next;
    while (timer != &timers) {
        if (timer->at_ms > now) {
            timer = timer->next;
            continue;
        }
        timer_disarm(timer);
        timer->fire(timer);
        timer = timers.next;
    }
}

void events_turn(bool idle)
{
    struct epoll_event batch[BATCH];
    int count = epoll_wait(set, batch, BATCH, idle ? wait_ms() : 0);
    if (count < 0 && errno != EINTR)
        _exit(EXIT_LAUNCH_FAILED);
    for (int i = 0; i < count; i++) {
        struct watch *watch = batch[i].data.ptr;
        if (watch->fd >= 0)
            watch->ready(watch, batch[i].events);
    }
    if (timers.next != &timers)
        fire_due();
    while (grave_count)
        free(graves[--grave_count]);
}

void watch_open(struct watch *watch, int fd, ready_call *ready)
{
    watch->fd = fd;
    watch->wanted = 0;
    watch->ready = ready;
}

void watch_want(struct watch *watch, uint32_t events)
{
    if (watch->fd < 0 || watch->wanted == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int change = !watch->wanted ? EPOLL_CTL_ADD : !events ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    /* Only a kernel out of memory refuses; a descriptor that is not watched would hang its owner unseen. */
    if (epoll_ctl(set, change, watch->fd, &event))
        _exit(EXIT_LAUNCH_FAILED);
    watch->wanted = events;
}

void watch_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    /* Explicit: a forked child that has not reached exec still holds the same open file. */
    watch_want(watch, 0);
    close(watch->fd);
    watch->fd = -1;
}

void timer_arm(struct timer *timer, uint64_t after_ms, fire_call *fire)
{
    timer_disarm(timer);
    timer->at_ms = events_now_ms() + after_ms;
    timer->fire = fire;
    timer->armed = true;
    timer->next = timers.next;
    timer->previous = &timers;
    timers.next->previous = timer;
    timers.next = timer;
}

void timer_disarm(struct timer *timer)
{
    if (!timer->armed)
        return;
    timer->armed = false;
    timer->next->previous = timer->previous;
    timer->previous->next = timer->next;
}

void events_free_later(void *memory)
{
    if (grave_count == grave_room) {
        size_t room = grave_room ? grave_room * 2 : 64;
        void **more = realloc(graves, room * sizeof *more);
        if (!more)
            return; /* a leak of one record is better than a use after free */
        graves = more;
        grave_room = room;
    }
    graves[grave_count++] = memory;
}
