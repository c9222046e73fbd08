#define _GNU_SOURCE
#include "notify.h"

#include "agent.h"
#include "events.h"
#include "link.h"
#include "paths.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
    REQUESTS_OF_WATCH_MAX = 16,
    DIRECTORIES_MAX = 4096,
    DEPTH_BYTES_MAX = 1024, /* of a path below the root; a deeper directory is not watched */
    LOOKS_A_STEP = 64,
    EVENT_ROOM = 4096, /* credit that one event can need at most */
    BUFFER_BYTES = 8192,
    WATCHED_EVENTS = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK,
};

struct directory {
    int wd;
    char *path; /* below the root, "" for it */
};

struct notify {
    struct request request;
    struct watch inotify;
    char *root;
    bool recursive, standing, gone;
    struct directory directories[DIRECTORIES_MAX];
    size_t count;
    char *queue[DIRECTORIES_MAX]; /* directories that are still to be watched */
    size_t queued;
    DIR *scanned;
    char *scanned_path;
    uint8_t buffer[BUFFER_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
    size_t from, length;
    uint64_t total;
    uint32_t last_what;
    char last_path[DEPTH_BYTES_MAX + NAME_MAX + 2];
};

static unsigned open_count;
static struct frame told;

static void notify_close(struct notify *notify)
{
    watch_close(&notify->inotify);
    if (notify->scanned)
        closedir(notify->scanned);
    free(notify->scanned_path);
    for (size_t i = 0; i < notify->count; i++)
        free(notify->directories[i].path);
    for (size_t i = 0; i < notify->queued; i++)
        free(notify->queue[i]);
    free(notify->root);
    open_count--;
}

/* Telling. */

static bool can_tell(const struct notify *notify)
{
    return notify->request.credit >= EVENT_ROOM + PAYLOAD_MAX && !link_busy();
}

static void flush(struct notify *notify)
{
    if (told.length > FRAME_HEAD) {
        notify->request.credit -= told.length - FRAME_HEAD;
        link_send(told.bytes, told.length);
    }
    channel_begin(&told, KIND_EVENT, notify->request.id);
}

/* The same about the same path twice in a row says nothing new. */
static bool is_repeated(struct notify *notify, uint32_t what, const char *path)
{
    if (what == notify->last_what && !strcmp(path, notify->last_path))
        return true;
    notify->last_what = what;
    snprintf(notify->last_path, sizeof notify->last_path, "%s", path);
    return false;
}

static void tell(struct notify *notify, uint32_t what, bool directory, const char *path)
{
    const struct layout *layout = channel_layout(KIND_EVENT, false);
    struct value values[FIELDS_MAX] = {
        {.number = what}, {.number = directory}, {.bytes = (const uint8_t *)path, .length = (uint32_t)strlen(path)}};
    if (is_repeated(notify, what, path))
        return;
    if (!channel_append(&told, layout, values)) {
        flush(notify);
        channel_append(&told, layout, values);
    }
    notify->total++;
}

/* Directories: found by number or path, watched, let go. */

static struct directory *by_number(struct notify *notify, int wd)
{
    for (size_t i = 0; i < notify->count; i++)
        if (notify->directories[i].wd == wd)
            return &notify->directories[i];
    return NULL;
}

static void let_go(struct notify *notify, struct directory *directory)
{
    free(directory->path);
    *directory = notify->directories[--notify->count];
}

static bool is_below(const char *path, const char *top)
{
    size_t length = strlen(top);
    return !strncmp(path, top, length) && (!path[length] || path[length] == '/');
}

/* It has another name now, or lies elsewhere: what it is found as is watched anew. */
static void let_go_below(struct notify *notify, const char *top)
{
    for (size_t i = notify->count; i-- > 0;)
        if (is_below(notify->directories[i].path, top)) {
            inotify_rm_watch(notify->inotify.fd, notify->directories[i].wd);
            let_go(notify, &notify->directories[i]);
        }
}

/* "" and "name" give "name", "a" and "b" give "a/b"; NULL when that is too long. */
static char *joined(const char *path, const char *name)
{
    char *whole = NULL;
    if (strlen(path) + strlen(name) + 1 > DEPTH_BYTES_MAX + NAME_MAX)
        return NULL;
    return asprintf(&whole, "%s%s%s", path, *path ? "/" : "", name) < 0 ? NULL : whole;
}

static void enqueue(struct notify *notify, const char *path)
{
    bool fits = strlen(path) <= DEPTH_BYTES_MAX && notify->queued + notify->count < DIRECTORIES_MAX;
    char *copy = fits ? strdup(path) : NULL;
    if (copy)
        notify->queue[notify->queued++] = copy;
    else
        tell(notify, EVENT_UNWATCHED, true, path);
}

/* Watches the directory that is open; false with errno. */
static bool watch_directory(struct notify *notify, int fd, const char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(notify->inotify.fd, link, WATCHED_EVENTS);
    if (wd < 0)
        return false;
    struct directory *known = by_number(notify, wd);
    char *copy = strdup(path);
    if (!copy)
        return false;
    if (known)
        free(known->path);
    else
        known = &notify->directories[notify->count++];
    *known = (struct directory){wd, copy};
    return true;
}

static int open_directory(const struct notify *notify, const char *path)
{
    char whole[PATH_MAX];
    int length = snprintf(whole, sizeof whole, "%s%s%s", notify->root, *path ? "/" : "", path);
    if (length < 0 || (size_t)length >= sizeof whole) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return path_open(whole, O_RDONLY | O_DIRECTORY | (*path ? O_NOFOLLOW : 0));
}

/* Takes the next of the queue; what is gone meanwhile is passed over. */
static void begin_scan(struct notify *notify)
{
    char *path = notify->queue[--notify->queued];
    int fd = open_directory(notify, path);
    if (fd >= 0 && !watch_directory(notify, fd, path)) {
        tell(notify, EVENT_UNWATCHED, true, path);
        close(fd);
        fd = -1;
    }
    notify->scanned = fd >= 0 && notify->recursive ? fdopendir(fd) : NULL;
    notify->scanned_path = path;
    if (!notify->scanned) {
        if (fd >= 0)
            close(fd);
        free(path);
        notify->scanned_path = NULL;
    }
}

/* What a directory holds by the time that it is watched nobody else will tell of. */
static void scan_one(struct notify *notify)
{
    struct dirent *entry = readdir(notify->scanned);
    if (!entry) {
        closedir(notify->scanned);
        free(notify->scanned_path);
        notify->scanned = NULL;
        notify->scanned_path = NULL;
        return;
    }
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
        return;
    char *path = joined(notify->scanned_path, entry->d_name);
    if (!path)
        return;
    if (notify->standing)
        tell(notify, EVENT_CREATED, entry->d_type == DT_DIR, path);
    if (entry->d_type == DT_DIR)
        enqueue(notify, path);
    free(path);
}

/* Events of the kernel. */

static uint32_t kind_of(uint32_t mask)
{
    return mask & IN_CREATE                         ? EVENT_CREATED
           : mask & (IN_MODIFY | IN_CLOSE_WRITE)    ? EVENT_CHANGED
           : mask & IN_DELETE                       ? EVENT_REMOVED
           : mask & IN_MOVED_FROM                   ? EVENT_MOVED_AWAY
           : mask & IN_MOVED_TO                     ? EVENT_MOVED_HERE
           : mask & IN_ATTRIB                       ? EVENT_ATTRIBUTES
                                                    : 0;
}

static void take_entry(struct notify *notify, const struct inotify_event *event, const char *path)
{
    bool directory = event->mask & IN_ISDIR;
    uint32_t what = kind_of(event->mask);
    if (!what)
        return;
    tell(notify, what, directory, path);
    if (!directory || !notify->recursive)
        return;
    if (what == EVENT_MOVED_AWAY)
        let_go_below(notify, path);
    else if (what == EVENT_CREATED || what == EVENT_MOVED_HERE)
        enqueue(notify, path);
}

static void take_event(struct notify *notify, const struct inotify_event *event)
{
    struct directory *directory = by_number(notify, event->wd);
    if (event->mask & IN_Q_OVERFLOW)
        tell(notify, EVENT_OVERFLOW, false, "");
    if (!directory)
        return;
    bool root = !*directory->path;
    if (root && event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED))
        notify->gone = true;
    if (event->mask & IN_IGNORED) {
        let_go(notify, directory);
        return;
    }
    char *path = event->len ? joined(directory->path, event->name) : root ? strdup("") : NULL;
    if (path)
        take_entry(notify, event, path);
    free(path);
}

static void take_next(struct notify *notify)
{
    const struct inotify_event *event = (const void *)(notify->buffer + notify->from);
    notify->from += sizeof *event + event->len;
    take_event(notify, event);
}

static bool has_work(const struct notify *notify)
{
    return !notify->standing || notify->scanned || notify->queued || notify->from < notify->length || notify->gone;
}

static void look(struct notify *notify)
{
    if (notify->scanned) {
        scan_one(notify);
    } else if (notify->queued) {
        begin_scan(notify);
    } else if (!notify->standing) {
        struct value count = {.number = notify->count};
        notify->standing = true;
        reply(notify->request.id, KIND_WATCHED, &count);
    } else {
        take_next(notify);
    }
}

static void update(struct request *request)
{
    struct notify *notify = container_of(request, struct notify, request);
    request->runnable = has_work(notify) && can_tell(notify);
    watch_want(&notify->inotify, has_work(notify) ? 0 : EPOLLIN);
}

static void end(struct notify *notify)
{
    struct value total = {.number = notify->total};
    reply(notify->request.id, KIND_END, &total);
    notify_close(notify);
    request_close(&notify->request);
}

static void step(struct request *request)
{
    struct notify *notify = container_of(request, struct notify, request);
    channel_begin(&told, KIND_EVENT, request->id);
    notify->last_what = 0; /* what was sent may have been acted on: the same again is news */
    for (int i = 0; i < LOOKS_A_STEP && has_work(notify) && !notify->gone && can_tell(notify); i++)
        look(notify);
    flush(notify);
    if (notify->gone)
        end(notify);
    else
        update(request);
}

static void ready(struct watch *watch, uint32_t events)
{
    struct notify *notify = container_of(watch, struct notify, inotify);
    (void)events;
    ssize_t got = read(watch->fd, notify->buffer, sizeof notify->buffer);
    notify->from = 0;
    notify->length = got > 0 ? (size_t)got : 0;
    update(&notify->request);
}

static void cancel(struct request *request)
{
    reply_failed(request->id, ECANCELED, "watch");
    notify_close(container_of(request, struct notify, request));
    request_close(request);
}

static const struct request_calls calls = {.resume = update, .cancel = cancel, .step = step};

/* Makes sure of the root at once, so that what cannot be watched is told as an error. */
static bool open_root(struct notify *notify)
{
    int fd = notify->root ? open_directory(notify, "") : -1;
    bool watched = fd >= 0 && watch_directory(notify, fd, "");
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return watched;
}

void notify_begin(uint32_t id, const struct value *values)
{
    struct notify *notify = open_count < REQUESTS_OF_WATCH_MAX ? calloc(1, sizeof *notify) : NULL;
    if (!notify) {
        reply_failed(id, EAGAIN, "too many watches");
        return;
    }
    open_count++;
    notify->recursive = values[WATCH_FLAGS].number & WATCH_RECURSIVE;
    notify->root = text_of(&values[WATCH_PATH]);
    watch_open(&notify->inotify, inotify_init1(IN_NONBLOCK | IN_CLOEXEC), ready);
    if (notify->inotify.fd < 0 || !open_root(notify)) {
        reply_failed(id, errno, "watch");
        notify_close(notify);
        free(notify);
        return;
    }
    if (notify->recursive)
        enqueue(notify, "");
    request_open(&notify->request, id, &calls);
    update(&notify->request);
}
