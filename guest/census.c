#define _GNU_SOURCE
#include "census.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096, STAT_STATE = 3, STAT_USER = 14, STAT_SYSTEM = 15, STAT_STARTED = 22 };

static size_t read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

/* Field `number` of a stat line, from the state on: the name before it may hold anything. */
static const char *stat_field(const char *text, int number)
{
    const char *at = strrchr(text, ')');
    for (int i = STAT_STATE - 1; at && i < number; i++)
        at = strchr(at + 1, ' ');
    return at ? at + 1 : "";
}

/* Kernels without scheduling statistics, and gVisor: the processor time it had. */
static uint64_t count_runs(const char *path, const char *stat)
{
    char text[128];
    unsigned long long runs;
    if (read_text(path, text, sizeof text) && sscanf(text, "%*u %*u %llu", &runs) == 1)
        return runs;
    return strtoull(stat_field(stat, STAT_USER), NULL, 10) + strtoull(stat_field(stat, STAT_SYSTEM), NULL, 10);
}

static bool read_thread(pid_t process, pid_t id, struct thread *thread)
{
    char path[64], stat[TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process, id);
    if (!read_text(path, stat, sizeof stat))
        return false;
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", process, id);
    *thread = (struct thread){
        .process = process,
        .id = id,
        .state = *stat_field(stat, STAT_STATE),
        .started = strtoull(stat_field(stat, STAT_STARTED), NULL, 10),
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
    static const char label[] = "\nTracerPid:";
    char path[32], text[TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/status", process);
    const char *line = read_text(path, text, sizeof text) ? strstr(text, label) : NULL;
    return line ? (pid_t)strtol(line + sizeof label - 1, NULL, 10) : 0;
}
