#define _GNU_SOURCE
#include "processes.h"

#include "agent.h"
#include "events.h"
#include "link.h"
#include "listeners.h"
#include "proc.h"
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS_A_STEP = 16, COMMAND_BYTES = 1024 }; /* so that other requests are served between */

struct survey {
    struct request request;
    DIR *proc;
    uint64_t left, total;
    struct listeners listeners;
};

static struct frame entries, sockets;

static void survey_close(struct survey *survey)
{
    closedir(survey->proc);
    request_close(&survey->request);
}

static void flush(struct frame *frame, enum kind kind, uint32_t id)
{
    if (frame->length > FRAME_HEAD)
        link_send(frame->bytes, frame->length);
    channel_begin(frame, kind, id);
}

static void append(struct frame *frame, enum kind kind, uint32_t id, const struct value *values)
{
    const struct layout *layout = channel_layout(kind, false);
    if (!channel_append(frame, layout, values)) {
        flush(frame, kind, id);
        channel_append(frame, layout, values);
    }
}

static uint64_t age_ms(const char *stat)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t up = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint64_t started = proc_stat_number(stat, STAT_STARTED) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
    return up > started ? up - started : 0;
}

/* Its arguments, each ended by NUL; of one that has none, such as a zombie, its name in brackets. */
static uint32_t read_command(pid_t pid, const char *stat, char *command)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    size_t length = proc_read(path, command, COMMAND_BYTES);
    const char *from = strchr(stat, '('), *to = strrchr(stat, ')');
    if (!length && from && to > from)
        length = (size_t)snprintf(command, COMMAND_BYTES, "[%.*s]", (int)(to - from - 1), from + 1);
    return (uint32_t)(length < COMMAND_BYTES ? length : COMMAND_BYTES - 1);
}

static void tell_listener(void *context, pid_t pid, const struct listener *listener)
{
    struct survey *survey = context;
    struct value values[FIELDS_MAX] = {
        {.number = (uint64_t)pid},
        {.number = listener->uid},
        {.number = listener->family},
        {.number = listener->port},
        {.bytes = (const uint8_t *)listener->address, .length = (uint32_t)strlen(listener->address)},
    };
    append(&sockets, KIND_LISTENER, survey->request.id, values);
}

static void tell_process(struct survey *survey, pid_t pid)
{
    char path[32], stat[PROC_TEXT_BYTES], status[PROC_TEXT_BYTES], command[COMMAND_BYTES];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    bool there = proc_read(path, stat, sizeof stat);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (!there || !proc_read(path, status, sizeof status))
        return; /* gone meanwhile */
    uint64_t ticks = proc_stat_number(stat, STAT_USER) + proc_stat_number(stat, STAT_SYSTEM);
    uint64_t uid = proc_status_number(status, "\nUid:"), gid = proc_status_number(status, "\nGid:");
    struct value values[FIELDS_MAX] = {
        {.number = (uint64_t)pid},
        {.number = proc_stat_number(stat, STAT_PARENT)},
        {.number = uid},
        {.number = proc_stat_number(stat, STAT_THREADS)},
        {.number = (uint8_t)*proc_stat_field(stat, STAT_STATE)},
        {.number = tree_of(pid)},
        {.number = ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK)},
        {.number = proc_stat_number(stat, STAT_RESIDENT) * (uint64_t)sysconf(_SC_PAGESIZE) / 1024},
        {.number = age_ms(stat)},
        {.bytes = (const uint8_t *)command, .length = read_command(pid, stat, command)},
    };
    append(&entries, KIND_PROCESS, survey->request.id, values);
    survey->total++;
    survey->left--;
    listeners_of(&survey->listeners, pid, (uid_t)uid, (gid_t)gid, tell_listener, survey);
}

static void survey_end(struct survey *survey)
{
    struct value total = {.number = survey->total};
    for (size_t i = 0; i < survey->listeners.count; i++)
        if (!survey->listeners.all[i].owned)
            tell_listener(survey, 0, &survey->listeners.all[i]);
    flush(&sockets, KIND_LISTENER, survey->request.id);
    reply(survey->request.id, KIND_END, &total);
    survey_close(survey);
}

static void survey_step(struct request *request)
{
    struct survey *survey = container_of(request, struct survey, request);
    struct dirent *entry = NULL;
    channel_begin(&entries, KIND_PROCESS, request->id);
    channel_begin(&sockets, KIND_LISTENER, request->id);
    for (int i = 0; i < LOOKS_A_STEP && survey->left; i++) {
        entry = readdir(survey->proc);
        if (!entry)
            break;
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (!*end && pid > 1) /* the agent is not one of theirs */
            tell_process(survey, (pid_t)pid);
    }
    flush(&entries, KIND_PROCESS, request->id);
    flush(&sockets, KIND_LISTENER, request->id);
    if (!entry || !survey->left)
        survey_end(survey);
}

static void survey_cancel(struct request *request)
{
    reply_failed(request->id, ECANCELED, "processes");
    survey_close(container_of(request, struct survey, request));
}

static const struct request_calls survey_calls = {.cancel = survey_cancel, .step = survey_step};

void processes_begin(uint32_t id, const struct value *values)
{
    struct survey *survey = calloc(1, sizeof *survey);
    DIR *proc = survey ? opendir("/proc") : NULL;
    if (!proc) {
        reply_failed(id, errno, "processes");
        free(survey);
        return;
    }
    survey->proc = proc;
    survey->left = values[0].number ? values[0].number : UINT64_MAX;
    listeners_find(&survey->listeners);
    request_open(&survey->request, id, &survey_calls);
    survey->request.runnable = true;
}
