#define _GNU_SOURCE
#include "exec.h"

#include "agent.h"
#include "census.h"
#include "events.h"
#include "freeze.h"
#include "link.h"
#include "spawn.h"
#include "terminal.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LINGER_MS = 500, /* how long EXIT waits for descendants that hold the pipes */
    READS_A_TURN = 8,
    KILL_AGAIN_MS = 100,
    NO_BOUND = -1,
};

struct stream {
    struct watch watch;
    struct exec *exec;
    enum kind kind;
    uint32_t cut_flag;
    uint64_t kept;
    int64_t bound; /* bytes still to be read before the pipe is let go, or NO_BOUND */
};

struct exec {
    struct request request;
    pid_t pid;
    uint64_t mark, output_limit;
    struct stream out, err;
    struct watch status, in;
    uint8_t *pending; /* stdin that the pipe has not taken */
    size_t pending_from, pending_length;
    bool terminal, in_ended, running, ended;
    struct timer deadline, linger;
    int code;
    uint32_t flags;
    uint64_t memory_kills;
    struct rusage usage;
};

static const struct request_calls exec_calls;
static const int *memory_files;
static uint8_t chunk[FRAME_HEAD + PAYLOAD_MAX];

void exec_watch_memory(const int *event_files)
{
    memory_files = event_files;
}

/* The sum of `oom_kill N` over the sandbox's memory cgroups. */
static uint64_t memory_kills(void)
{
    uint64_t sum = 0;
    for (const int *file = memory_files; file && *file >= 0; file++) {
        char text[512];
        ssize_t got = pread(*file, text, sizeof text - 1, 0);
        text[got > 0 ? got : 0] = 0;
        const char *line = strstr(text, "oom_kill ");
        sum += line ? strtoull(line + 9, NULL, 10) : 0;
    }
    return sum;
}

void kills_tell(uint32_t id)
{
    struct value total = {.number = memory_kills()};
    reply(id, KIND_END, &total);
}

static void finish(struct exec *exec)
{
    struct value values[] = {
        {.number = (uint64_t)exec->code},
        {.number = exec->flags},
        {.number = (uint64_t)exec->usage.ru_utime.tv_sec * 1000000 + (uint64_t)exec->usage.ru_utime.tv_usec},
        {.number = (uint64_t)exec->usage.ru_stime.tv_sec * 1000000 + (uint64_t)exec->usage.ru_stime.tv_usec},
        {.number = (uint64_t)exec->usage.ru_maxrss},
    };
    reply(exec->request.id, KIND_EXIT, values);
}

static void release(struct exec *exec)
{
    timer_disarm(&exec->deadline);
    timer_disarm(&exec->linger);
    watch_close(&exec->status);
    watch_close(&exec->in);
    watch_close(&exec->out.watch);
    watch_close(&exec->err.watch);
    free(exec->pending);
    exec->pending = NULL;
    request_close(&exec->request);
}

static void finish_if_done(struct exec *exec)
{
    if (!exec->running || !exec->ended || exec->out.watch.fd >= 0 || exec->err.watch.fd >= 0)
        return;
    finish(exec);
    release(exec);
}

/* Output: read, kept up to the limit and to the credit, dropped past the limit. */

static uint64_t room_of(const struct stream *stream)
{
    uint64_t limit = stream->exec->output_limit;
    return !limit ? UINT64_MAX : limit - stream->kept;
}

static bool starved(const struct stream *stream)
{
    return room_of(stream) && (!stream->exec->request.credit || link_busy());
}

static void stream_want(struct stream *stream)
{
    bool wanted = stream->exec->running && !starved(stream);
    watch_want(&stream->watch, wanted ? EPOLLIN : 0);
}

static void deliver(struct stream *stream, size_t got)
{
    struct request *request = &stream->exec->request;
    uint64_t room = room_of(stream);
    size_t sent = got < room ? got : (size_t)room;
    if (sent < got)
        stream->exec->flags |= stream->cut_flag;
    if (!sent)
        return;
    channel_head(chunk, stream->kind, request->id, (uint32_t)sent);
    link_send(chunk, FRAME_HEAD + sent);
    stream->kept += sent;
    request->credit -= sent;
}

/* One read; false when there is nothing more for now. */
static bool stream_read(struct stream *stream)
{
    size_t most = PAYLOAD_MAX;
    if (starved(stream))
        return false;
    if (room_of(stream) && stream->exec->request.credit < most)
        most = (size_t)stream->exec->request.credit;
    if (stream->bound != NO_BOUND && (size_t)stream->bound < most)
        most = (size_t)stream->bound;
    ssize_t got = most ? read(stream->watch.fd, chunk + FRAME_HEAD, most) : 0;
    if (got < 0 && errno != EIO)
        return errno == EINTR;
    if (got <= 0) { /* EIO: nobody has the other end of the terminal open */
        watch_close(&stream->watch);
        return false;
    }
    if (stream->bound != NO_BOUND)
        stream->bound -= got;
    deliver(stream, (size_t)got);
    return true;
}

static void stream_pump(struct stream *stream)
{
    if (stream->watch.fd < 0 || !stream->exec->running)
        return;
    for (int i = 0; i < READS_A_TURN && stream_read(stream); i++)
        continue;
    stream_want(stream);
}

static void output_ready(struct watch *watch, uint32_t events)
{
    struct stream *stream = container_of(watch, struct stream, watch);
    (void)events;
    stream_pump(stream);
    finish_if_done(stream->exec);
}

/* What is in the pipe now still belongs to the command; what comes later does not. */
static void let_go(struct stream *stream)
{
    int waiting = 0;
    if (stream->watch.fd < 0)
        return;
    if (starved(stream) && !ioctl(stream->watch.fd, FIONREAD, &waiting) && waiting > 0)
        stream->bound = waiting;
    else
        watch_close(&stream->watch);
}

static void lingered(struct timer *timer)
{
    struct exec *exec = container_of(timer, struct exec, linger);
    let_go(&exec->out);
    let_go(&exec->err);
    finish_if_done(exec);
}

/* Input: written at once as far as the pipe takes it, kept up to the window for the rest. */

static void input_close(struct exec *exec)
{
    watch_close(&exec->in);
    free(exec->pending);
    exec->pending = NULL;
    exec->pending_from = exec->pending_length = 0;
}

static size_t input_write(struct exec *exec, const uint8_t *bytes, size_t length)
{
    ssize_t took = 0;
    if (length)
        took = exec->terminal ? terminal_write(exec->in.fd, bytes, length) : write(exec->in.fd, bytes, length);
    if (took < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (took < 0) {
        /* Nobody reads any more: what the host still sends is taken and dropped. */
        request_consumed(&exec->request, exec->pending_length);
        input_close(exec);
        return length;
    }
    return (size_t)took;
}

static void input_ready(struct watch *watch, uint32_t events)
{
    struct exec *exec = container_of(watch, struct exec, in);
    (void)events;
    if (!exec->pending_length)
        return;
    size_t took = input_write(exec, exec->pending + exec->pending_from, exec->pending_length);
    if (watch->fd < 0)
        return;
    exec->pending_from += took;
    exec->pending_length -= took;
    request_consumed(&exec->request, took);
    if (exec->pending_length)
        return;
    exec->pending_from = 0;
    watch_want(watch, 0);
    if (exec->in_ended)
        input_close(exec);
}

static void input_keep(struct exec *exec, const uint8_t *bytes, size_t length)
{
    if (exec->pending_length + length > WINDOW_BYTES)
        link_end(); /* the host sent more than it was granted */
    if (!exec->pending)
        exec->pending = malloc(WINDOW_BYTES);
    if (!exec->pending)
        link_end();
    if (exec->pending_from + exec->pending_length + length > WINDOW_BYTES) {
        memmove(exec->pending, exec->pending + exec->pending_from, exec->pending_length);
        exec->pending_from = 0;
    }
    memcpy(exec->pending + exec->pending_from + exec->pending_length, bytes, length);
    exec->pending_length += length;
    watch_want(&exec->in, EPOLLOUT);
}

static void exec_input(struct request *request, enum kind kind, const struct value *data)
{
    struct exec *exec = container_of(request, struct exec, request);
    if (kind != KIND_STDIN)
        return;
    if (exec->terminal && !data->length)
        return; /* a terminal has no end of input but the character that says so */
    if (exec->in.fd < 0 || exec->in_ended) {
        request_consumed(request, data->length);
        return;
    }
    exec->in_ended = !data->length;
    if (exec->in_ended && !exec->pending_length) {
        input_close(exec);
        return;
    }
    size_t took = exec->pending_length ? 0 : input_write(exec, data->bytes, data->length);
    request_consumed(request, took);
    if (took < data->length)
        input_keep(exec, data->bytes + took, data->length - took);
}

/* Life and death. */

static void exec_kill(struct exec *exec);

static void kill_again(struct timer *timer)
{
    exec_kill(container_of(timer, struct exec, deadline));
}

/*
 * Until it is seen to have ended: of whom somebody else traces, the death is told to that one first, and to us
 * when he cares to look. So he ends with it.
 */
static void exec_kill(struct exec *exec)
{
    pid_t tracer = exec->ended ? 0 : census_tracer(exec->pid);
    tree_kill(exec->mark);
    if (exec->ended)
        return;
    kill(exec->pid, SIGKILL); /* it may not have reached the mark yet */
    if (tracer > 1)
        kill(tracer, SIGKILL);
    timer_arm(&exec->deadline, KILL_AGAIN_MS, kill_again);
}

static void timed_out(struct timer *timer)
{
    struct exec *exec = container_of(timer, struct exec, deadline);
    exec->flags |= EXIT_TIMED_OUT;
    exec_kill(exec);
}

static void exec_signal(struct request *request, int number)
{
    struct exec *exec = container_of(request, struct exec, request);
    if (number == SIGKILL)
        exec_kill(exec);
    else if (number > 0 && number < NSIG)
        tree_signal(exec->mark, number);
}

static void exec_resize(struct request *request, uint64_t columns, uint64_t rows)
{
    struct exec *exec = container_of(request, struct exec, request);
    if (!exec->terminal || exec->in.fd < 0 || !terminal_resize(exec->in.fd, columns, rows))
        return;
    if (terminal_control() != CONTROL_WHOLE)
        tree_signal(exec->mark, SIGWINCH);
}

static void exec_resume(struct request *request)
{
    struct exec *exec = container_of(request, struct exec, request);
    stream_pump(&exec->out);
    stream_pump(&exec->err);
    finish_if_done(exec);
}

/* The status pipe closed: the program runs. Or it says why it does not. */
static void status_ready(struct watch *watch, uint32_t events)
{
    struct exec *exec = container_of(watch, struct exec, status);
    struct spawn_failure failure;
    (void)events;
    ssize_t got = read(watch->fd, &failure, sizeof failure);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    watch_close(watch);
    if (got == sizeof failure) {
        failure.step[sizeof failure.step - 1] = 0;
        reply_failed(exec->request.id, failure.error, failure.step);
        release(exec);
        return;
    }
    struct value pid = {.number = (uint64_t)exec->pid};
    reply(exec->request.id, KIND_STARTED, &pid);
    exec->running = true;
    stream_want(&exec->out);
    stream_want(&exec->err);
    finish_if_done(exec);
}

static bool exec_reaped(struct request *request, pid_t pid, int status, const void *usage)
{
    struct exec *exec = container_of(request, struct exec, request);
    if (exec->ended || exec->pid != pid)
        return false;
    exec->ended = true;
    exec->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    memcpy(&exec->usage, usage, sizeof exec->usage);
    /* Of whomever in the sandbox: a compiler's end is told by its `make`, and by another code. */
    if (exec->code && memory_kills() > exec->memory_kills)
        exec->flags |= EXIT_OUT_OF_MEMORY;
    timer_disarm(&exec->deadline);
    if (exec->status.fd >= 0)
        status_ready(&exec->status, 0); /* told before its end, in whatever order the two were noticed */
    if (!exec->running)
        return true;
    timer_arm(&exec->linger, LINGER_MS, lingered);
    exec_resume(request);
    return true;
}

static const struct request_calls exec_calls = {
    .input = exec_input,
    .signal = exec_signal,
    .resize = exec_resize,
    .resume = exec_resume,
    .reaped = exec_reaped,
};

/* Starting. */

static char **text_list(const struct value *list)
{
    struct cursor rest = {list->bytes, list->length};
    struct value str;
    char **texts = calloc((size_t)list->count + 1, sizeof *texts);
    for (uint32_t i = 0; texts && i < list->count && channel_next_str(&rest, &str); i++) {
        texts[i] = text_of(&str);
        if (!texts[i])
            return texts; /* found out by the caller: the list is shorter than its count */
    }
    return texts;
}

static void free_list(char **texts)
{
    for (char **text = texts; text && *text; text++)
        free(*text);
    free(texts);
}

static bool is_whole(char **texts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!texts || !texts[i])
            return false;
    return texts != NULL;
}

static void close_pair(int *pair)
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

/* Opens a pipe of which `ours` (0 reads, 1 writes) does not block; the child's end is an ordinary one. */
static bool open_pipe(int *pair, int ours)
{
    return !pipe2(pair, O_CLOEXEC) && !fcntl(pair[ours], F_SETFL, O_NONBLOCK);
}

static void open_stream(struct stream *stream, struct exec *exec, enum kind kind, int fd)
{
    stream->exec = exec;
    stream->kind = kind;
    stream->cut_flag = kind == KIND_STDOUT ? EXIT_STDOUT_CUT : EXIT_STDERR_CUT;
    stream->bound = NO_BOUND;
    watch_open(&stream->watch, fd, output_ready);
}

/* Makes the pipes and the process; on success the agent's ends are in `exec`. */
static bool start(struct exec *exec, struct spawn *what, uint64_t flags)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, status = -1;
    bool piped = flags & EXEC_STDIN_OPEN, merged = flags & EXEC_MERGE_STDERR;
    bool ready = (piped ? open_pipe(in, 1) : (in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) &&
                 open_pipe(out, 0) && (merged || open_pipe(err, 0));
    what->stdin_fd = in[0];
    what->stdout_fd = out[1];
    what->stderr_fd = merged ? out[1] : err[1];
    exec->pid = ready ? spawn(what, &status) : -1;
    if (exec->pid < 0) {
        int error = errno;
        close_pair(in);
        close_pair(out);
        close_pair(err);
        errno = error;
        return false;
    }
    close(in[0]);
    close(out[1]);
    if (!merged)
        close(err[1]);
    watch_open(&exec->in, in[1], input_ready);
    watch_open(&exec->status, status, status_ready);
    open_stream(&exec->out, exec, KIND_STDOUT, out[0]);
    open_stream(&exec->err, exec, KIND_STDERR, err[0]);
    return true;
}

/* The same with a terminal for all three: the agent's end is read and written under two numbers. */
static bool start_on_terminal(struct exec *exec, struct spawn *what, const struct value *values)
{
    struct terminal terminal;
    int status = -1, in = -1;
    enum control control = terminal_control();
    if (control == CONTROL_NONE || control == CONTROL_UNKNOWN) {
        errno = control == CONTROL_NONE ? EOPNOTSUPP : EAGAIN;
        return false;
    }
    if (!terminal_open(&terminal, what->uid))
        return false;
    what->stdin_fd = what->stdout_fd = what->stderr_fd = terminal.theirs;
    what->terminal = exec->terminal = true;
    bool ready = terminal_resize(terminal.ours, values[TERMINAL_COLUMNS].number, values[TERMINAL_ROWS].number);
    in = ready ? fcntl(terminal.ours, F_DUPFD_CLOEXEC, 3) : -1;
    exec->pid = in >= 0 ? spawn(what, &status) : -1;
    int error = errno;
    close(terminal.theirs);
    if (exec->pid < 0) {
        close(terminal.ours);
        if (in >= 0)
            close(in);
        errno = error;
        return false;
    }
    watch_open(&exec->in, in, input_ready);
    watch_open(&exec->status, status, status_ready);
    open_stream(&exec->out, exec, KIND_STDOUT, terminal.ours);
    open_stream(&exec->err, exec, KIND_STDERR, -1);
    return true;
}

static void begin_with(uint32_t id, const struct value *values, struct spawn *what, bool terminal)
{
    struct exec *exec = calloc(1, sizeof *exec);
    if (!exec) {
        reply_failed(id, ENOMEM, "exec");
        return;
    }
    exec->mark = what->mark = tree_new_mark();
    exec->output_limit = values[EXEC_OUTPUT_LIMIT].number;
    exec->memory_kills = memory_kills();
    if (!(terminal ? start_on_terminal(exec, what, values) : start(exec, what, values[EXEC_FLAGS].number))) {
        reply_failed(id, errno, "start");
        free(exec);
        return;
    }
    request_open(&exec->request, id, &exec_calls);
    watch_want(&exec->status, EPOLLIN);
    if (values[EXEC_TIMEOUT_MS].number)
        timer_arm(&exec->deadline, values[EXEC_TIMEOUT_MS].number, timed_out);
}

static void begin(uint32_t id, const struct value *values, bool terminal)
{
    struct spawn what = {
        .argv = text_list(&values[EXEC_ARGV]),
        .env = text_list(&values[EXEC_ENV]),
        .uid = (uid_t)values[EXEC_UID].number,
        .gid = (gid_t)values[EXEC_GID].number,
    };
    char *cwd = text_of(&values[EXEC_CWD]);
    what.cwd = cwd;
    /* The id -1 means "leave as it is" to the kernel: that would be root. */
    bool nobody = what.uid == (uid_t)-1 || what.gid == (gid_t)-1;
    if (freeze_holds())
        reply_failed(id, EBUSY, "frozen");
    else if (!cwd || nobody || !values[EXEC_ARGV].count || !is_whole(what.argv, values[EXEC_ARGV].count) ||
        !is_whole(what.env, values[EXEC_ENV].count))
        reply_failed(id, EINVAL, "arguments");
    else
        begin_with(id, values, &what, terminal);
    free_list(what.argv);
    free_list(what.env);
    free(cwd);
}

void exec_begin(uint32_t id, const struct value *values)
{
    begin(id, values, false);
}

void terminal_begin(uint32_t id, const struct value *values)
{
    begin(id, values, true);
}
