/* Pid 1 of the sandbox: the open requests of the channel, their answers, and the loop that serves them. */
#ifndef HANDIWORK_AGENT_H
#define HANDIWORK_AGENT_H

#include "channel.h"

#include <stdbool.h>
#include <sys/types.h>

enum { REQUESTS_MAX = 256 };

struct request;

/* What a kind of request does when something happens to it; NULL where nothing does. */
struct request_calls {
    void (*input)(struct request *request, enum kind kind, const struct value *data);
    void (*signal)(struct request *request, int number);
    void (*resize)(struct request *request, uint64_t columns, uint64_t rows);
    void (*resume)(struct request *request);               /* credit came, or the host caught up */
    void (*cancel)(struct request *request);
    void (*step)(struct request *request);                 /* a slice of work that needs no descriptor */
    bool (*reaped)(struct request *request, pid_t pid, int status, const void *usage);
};

/* First member of every open request's record; the record is freed after request_close. */
struct request {
    uint32_t id;
    const struct request_calls *calls;
    uint64_t credit;   /* bytes of streams that may still be sent */
    uint64_t received; /* bytes of streams that came and were not granted again */
    bool runnable;     /* step wants to be called */
};

struct agent_settings {
    int channel;
    int exit_socket; /* O_PATH descriptor of the egress socket, or -1: nothing leaves */
};

/* What the agent is given before it serves: its loop, and signals as nobody changed them. */
void agent_prepare(void);

/* Serves the channel until it ends; agent_prepare was called. */
_Noreturn void agent_serve(const struct agent_settings *settings);

void request_open(struct request *request, uint32_t id, const struct request_calls *calls);
void request_close(struct request *request);

/* Says that `bytes` of the host's stream were consumed, and grants them again from time to time. */
void request_consumed(struct request *request, uint64_t bytes);

void reply(uint32_t id, enum kind kind, const struct value *values);
void reply_ok(uint32_t id);
void reply_failed(uint32_t id, int error, const char *what);
void reply_name(uint32_t id, const char *name);

/* The bytes of `value` as a C string on the heap; NULL (errno EINVAL or ENOMEM) when they hold a NUL. */
char *text_of(const struct value *value);

#endif
