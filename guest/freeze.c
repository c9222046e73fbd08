#define _GNU_SOURCE
#include "freeze.h"

#include "agent.h"
#include "census.h"
#include "events.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

/*
 * One SIGSTOP to all reaches all: the kernel lets nobody with a signal pending finish a fork. But it is only
 * noticed when a thread comes back from the kernel, and until then it may send SIGCONT to another. So we look,
 * and send again, until two looks in a row show that nobody ran.
 */
enum { LOOK_MS = 2, PATIENCE_MS = 5000 };

struct freeze {
    struct request request;
    struct timer look;
    uint64_t give_up_at_ms;
    struct census before; /* from before the first signal: tells who stood still already */
    struct census still;  /* the last look */
    bool frozen;
};

static struct freeze *current;

bool freeze_holds(void)
{
    return current != NULL;
}

static bool is_dead(const struct thread *thread)
{
    return thread->state == 'Z' || thread->state == 'X';
}

/* A thread in an uninterruptible call (a parent in vfork, say) does not stop before that call ends. */
static bool may_stand(const struct thread *thread)
{
    return thread->state == 'T' || thread->state == 'D' || is_dead(thread);
}

/* Nobody of `now` is new, and nobody ran since `then`. */
static bool nobody_ran(const struct census *then, const struct census *now)
{
    for (size_t i = 0; i < now->count; i++) {
        const struct thread *thread = &now->threads[i], *known = census_find(then, thread);
        if (!is_dead(thread) && (!may_stand(thread) || !known || known->runs != thread->runs))
            return false;
    }
    return true;
}

/* It was stopped by somebody else, before us, and has not been let go since. */
static bool stood_before(const struct freeze *freeze, const struct thread *thread)
{
    const struct thread *known = census_find(&freeze->before, thread);
    return known && known->state == 'T' && known->runs == thread->runs;
}

/* Youngest first: a parent that goes on before its child would be told that the child was stopped. */
static void let_go(struct freeze *freeze)
{
    struct census now = {0};
    if (!census_take(&now)) {
        kill(-1, SIGCONT); /* out of memory: rather too many go on than too few */
        return;
    }
    for (size_t i = now.count; i-- > 0;) {
        const struct thread *thread = &now.threads[i], *known = census_find(&freeze->still, thread);
        if (thread->id == thread->process && !stood_before(freeze, known ? known : thread))
            kill(thread->process, SIGCONT);
    }
    census_free(&now);
}

static void end(struct freeze *freeze)
{
    timer_disarm(&freeze->look);
    let_go(freeze);
    census_free(&freeze->before);
    census_free(&freeze->still);
    current = NULL;
    request_close(&freeze->request);
}

static void fail(struct freeze *freeze, int error, const char *what)
{
    reply_failed(freeze->request.id, error, what);
    end(freeze);
}

static size_t processes_of(const struct census *census)
{
    size_t count = 0;
    for (size_t i = 0; i < census->count; i++)
        count += census->threads[i].id == census->threads[i].process && !is_dead(&census->threads[i]);
    return count;
}

static void look(struct timer *timer)
{
    struct freeze *freeze = container_of(timer, struct freeze, look);
    struct census now = {0};
    if (!census_take(&now)) {
        census_free(&now);
        fail(freeze, ENOMEM, "freeze");
        return;
    }
    bool still = nobody_ran(&freeze->still, &now);
    census_free(&freeze->still);
    freeze->still = now;
    if (still) {
        struct value count = {.number = processes_of(&now)};
        freeze->frozen = true;
        reply(freeze->request.id, KIND_FROZEN, &count);
    } else if (events_now_ms() >= freeze->give_up_at_ms) {
        fail(freeze, EBUSY, "a process that does not stand still");
    } else {
        kill(-1, SIGSTOP);
        timer_arm(&freeze->look, LOOK_MS, look);
    }
}

static void cancel(struct request *request)
{
    struct freeze *freeze = container_of(request, struct freeze, request);
    struct census now = {0};
    if (!freeze->frozen)
        reply_failed(request->id, ECANCELED, "freeze");
    else if (census_take(&now) && nobody_ran(&freeze->still, &now))
        reply_ok(request->id);
    else
        reply_failed(request->id, EBUSY, "a process that ran while all were frozen");
    census_free(&now);
    end(freeze);
}

static const struct request_calls calls = {.cancel = cancel};

/* A tracer that is stopped would be told later of the stop of whom it traces, and keep that one stopped. */
static bool is_traced(const struct census *census)
{
    for (size_t i = 0; i < census->count; i++)
        if (census->threads[i].id == census->threads[i].process && census_tracer(census->threads[i].process))
            return true;
    return false;
}

void freeze_begin(uint32_t id)
{
    struct freeze *freeze = current ? NULL : calloc(1, sizeof *freeze);
    if (!freeze) {
        reply_failed(id, current ? EBUSY : ENOMEM, "freeze");
        return;
    }
    if (!census_take(&freeze->before) || is_traced(&freeze->before)) {
        reply_failed(id, EBUSY, "a process that is being traced");
        census_free(&freeze->before);
        free(freeze);
        return;
    }
    current = freeze;
    freeze->give_up_at_ms = events_now_ms() + PATIENCE_MS;
    request_open(&freeze->request, id, &calls);
    kill(-1, SIGSTOP);
    timer_arm(&freeze->look, LOOK_MS, look);
}
