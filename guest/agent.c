#include "agent.h"

#include "connect.h"
#include "events.h"
#include "exec.h"
#include "fatal.h"
#include "files.h"
#include "forward.h"
#include "freeze.h"
#include "link.h"
#include "notify.h"
#include "processes.h"
#include "transfer.h"
#include "walk.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static struct request *requests[REQUESTS_MAX];
static size_t request_count;
static struct watch child_watch;

void reply(uint32_t id, enum kind kind, const struct value *values)
{
    static struct frame frame;
    if (channel_encode(&frame, kind, id, values))
        link_send(frame.bytes, frame.length);
}

void reply_ok(uint32_t id)
{
    reply(id, KIND_OK, NULL);
}

void reply_failed(uint32_t id, int error, const char *what)
{
    struct value values[] = {{.number = (uint64_t)error},
                             {.bytes = (const uint8_t *)what, .length = (uint32_t)strlen(what)}};
    reply(id, KIND_FAILED, values);
}

void reply_name(uint32_t id, const char *name)
{
    struct value value = {.bytes = (const uint8_t *)name, .length = (uint32_t)strlen(name)};
    reply(id, KIND_NAME, &value);
}

char *text_of(const struct value *value)
{
    if (value->length && memchr(value->bytes, 0, value->length)) {
        errno = EINVAL;
        return NULL;
    }
    char *text = malloc((size_t)value->length + 1);
    if (!text)
        return NULL;
    if (value->length)
        memcpy(text, value->bytes, value->length);
    text[value->length] = 0;
    return text;
}

void request_open(struct request *request, uint32_t id, const struct request_calls *calls)
{
    request->id = id;
    request->calls = calls;
    request->credit = WINDOW_BYTES;
    requests[request_count++] = request;
}

void request_close(struct request *request)
{
    for (size_t i = 0; i < request_count; i++)
        if (requests[i] == request) {
            requests[i] = requests[--request_count];
            events_free_later(request);
            return;
        }
}

void request_consumed(struct request *request, uint64_t bytes)
{
    request->received += bytes;
    if (request->received < WINDOW_BYTES / 4)
        return;
    struct value value = {.number = request->received};
    request->received = 0;
    reply(request->id, KIND_GRANT, &value);
}

static struct request *find(uint32_t id)
{
    for (size_t i = 0; i < request_count; i++)
        if (requests[i]->id == id)
            return requests[i];
    return NULL;
}

static void begin(const struct message *message)
{
    uint32_t id = message->id;
    const struct value *values = message->values;
    switch (message->layout->kind) {
    case KIND_EXEC: exec_begin(id, values); break;
    case KIND_TERMINAL: terminal_begin(id, values); break;
    case KIND_READ: read_begin(id, values); break;
    case KIND_WRITE: write_begin(id, values); break;
    case KIND_LIST: list_begin(id, values); break;
    case KIND_REMOVE: remove_begin(id, values); break;
    case KIND_STAT: files_stat(id, values); break;
    case KIND_MKDIR: files_mkdir(id, values); break;
    case KIND_MOVE: files_move(id, values); break;
    case KIND_REALPATH: files_realpath(id, values); break;
    case KIND_PING: reply_ok(id); break;
    case KIND_FREEZE: freeze_begin(id); break;
    case KIND_CONNECT: connect_begin(id, values); break;
    case KIND_PROCESSES: processes_begin(id, values); break;
    case KIND_WATCH: notify_begin(id, values); break;
    case KIND_KILLS: kills_tell(id); break;
    default: break;
    }
}

/* Frames for a request that has ended meanwhile are dropped: they were under way when it did. */
static void follow_up(struct request *request, const struct message *message)
{
    const struct request_calls *calls = request->calls;
    switch (message->layout->kind) {
    case KIND_STDIN:
    case KIND_DATA:
        if (calls->input)
            calls->input(request, message->layout->kind, &message->values[0]);
        break;
    case KIND_SIGNAL:
        if (calls->signal)
            calls->signal(request, (int)message->values[0].number);
        break;
    case KIND_RESIZE:
        if (calls->resize)
            calls->resize(request, message->values[RESIZE_COLUMNS].number, message->values[RESIZE_ROWS].number);
        break;
    case KIND_CREDIT:
        request->credit += message->values[0].number;
        if (calls->resume)
            calls->resume(request);
        break;
    case KIND_CANCEL:
        if (calls->cancel)
            calls->cancel(request);
        break;
    default: break;
    }
}

static bool follows(uint8_t kind)
{
    return kind == KIND_STDIN || kind == KIND_DATA || kind == KIND_SIGNAL || kind == KIND_CREDIT ||
           kind == KIND_CANCEL || kind == KIND_RESIZE;
}

static void arrived(const struct message *message)
{
    struct request *request = find(message->id);
    if (follows(message->layout->kind)) {
        if (request)
            follow_up(request, message);
    } else if (request) {
        link_end(); /* two requests under one id: the host has lost count */
    } else if (request_count == REQUESTS_MAX) {
        reply_failed(message->id, EAGAIN, "too many open requests");
    } else {
        begin(message);
    }
}

static void resume_all(void)
{
    for (size_t i = request_count; i-- > 0;)
        if (i < request_count && requests[i]->calls->resume)
            requests[i]->calls->resume(requests[i]);
}

/* One slice for each request that has one; true when another turn is needed at once. */
static bool step_all(void)
{
    bool more = false;
    for (size_t i = request_count; i-- > 0 && !link_busy();) {
        if (i >= request_count || !requests[i]->runnable)
            continue;
        requests[i]->calls->step(requests[i]);
        more = true;
    }
    return more;
}

static void child_ended(pid_t pid, int status, const struct rusage *usage)
{
    for (size_t i = 0; i < request_count; i++)
        if (requests[i]->calls->reaped && requests[i]->calls->reaped(requests[i], pid, status, usage))
            return;
}

/* Pid 1 reaps everybody's orphans as well as its own children. */
static void reap(struct watch *self, uint32_t events)
{
    struct signalfd_siginfo signals[8];
    struct rusage usage;
    int status;
    pid_t pid;
    (void)events;
    while (read(self->fd, signals, sizeof signals) > 0)
        continue;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        if (WIFSTOPPED(status))
            kill(pid, SIGKILL); /* it made its parent its tracer, which is nothing that we are */
        else
            child_ended(pid, status, &usage);
}

/* What our starter ignored, as nohup does hang-ups, would be ignored by every process inside too. */
static void reset_signals(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
}

static void watch_children(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    reset_signals();
    if (sigprocmask(SIG_BLOCK, &child, NULL) || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        fatal("signals");
    int fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        fatal("signalfd");
    watch_open(&child_watch, fd, reap);
    watch_want(&child_watch, EPOLLIN);
}

void agent_prepare(void)
{
    events_open();
    watch_children();
}

void agent_serve(const struct agent_settings *settings)
{
    struct value hello[] = {{.number = PROTOCOL_VERSION}, {.number = (uint64_t)getpid()}};
    forward_serve(settings->exit_socket);
    link_open(settings->channel, arrived, resume_all);
    reply(0, KIND_HELLO, hello);
    for (bool idle = true;; idle = !step_all())
        events_turn(idle);
}
