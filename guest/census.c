#define _GNU_SOURCE
#include "census.h"

#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Kernels without scheduling statistics, and gVisor: the processor time it had. */
static uint64_t count_runs(const char *path, const char *stat)
{
    char text[128];
    unsigned long long runs;
    if (proc_read(path, text, sizeof text) && sscanf(text, "%*u %*u %llu", &runs) == 1)
        return runs;
    return proc_stat_number(stat, STAT_USER) + proc_stat_number(stat, STAT_SYSTEM);
}

static bool read_thread(pid_t process, pid_t id, struct thread *thread)
{
    char path[64], stat[PROC_TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process, id);
    if (!proc_read(path, stat, sizeof stat))
        return false;
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", process, id);
    *thread = (struct thread){
        .process = process,
        .id = id,
        .state = *proc_stat_field(stat, STAT_STATE),
        .started = proc_stat_number(stat, STAT_STARTED),
        .runs = count_runs(path, stat),
    };
    return true;
}

static bool add(struct census *census, size_t *room, const struct thread *thread)
{
    if (census->count == *room) {
        size_t wanted = *room ? *room * 2 : 64;
        struct thread *more = realloc(census->threads, wanted * sizeof *more);
        if (!more)
            return false;
        census->threads = more;
        *room = wanted;
    }
    census->threads[census->count++] = *thread;
    return true;
}

static pid_t number_of(const struct dirent *entry)
{
    char *end;
    long number = strtol(entry->d_name, &end, 10);
    return *end ? 0 : (pid_t)number;
}

static bool add_process(struct census *census, size_t *room, pid_t process)
{
    char path[32];
    struct thread thread;
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *tasks = opendir(path);
    bool added = true;
    if (!tasks)
        return true; /* it is gone */
    for (struct dirent *entry; added && (entry = readdir(tasks));) {
        pid_t id = number_of(entry);
        if (id > 0 && read_thread(process, id, &thread))
            added = add(census, room, &thread);
    }
    closedir(tasks);
    return added;
}

static int by_id(const void *left, const void *right)
{
    const struct thread *a = left, *b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

bool census_take(struct census *census)
{
    size_t room = 0;
    census_free(census);
    DIR *proc = opendir("/proc");
    bool taken = proc != NULL;
    for (struct dirent *entry; taken && (entry = readdir(proc));) {
        pid_t process = number_of(entry);
        if (process > 1)
            taken = add_process(census, &room, process);
    }
    if (proc)
        closedir(proc);
    if (census->count)
        qsort(census->threads, census->count, sizeof *census->threads, by_id);
    return taken;
}

void census_free(struct census *census)
{
    free(census->threads);
    *census = (struct census){0};
}

const struct thread *census_find(const struct census *census, const struct thread *thread)
{
    const struct thread *found =
        census->count ? bsearch(thread, census->threads, census->count, sizeof *thread, by_id) : NULL;
    return found && found->started == thread->started ? found : NULL;
}

pid_t census_tracer(pid_t process)
{
    char path[32], text[PROC_TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/status", process);
    return proc_read(path, text, sizeof text) ? (pid_t)proc_status_number(text, "\nTracerPid:") : 0;
}
