#define _GNU_SOURCE
#include "walk.h"

#include "agent.h"
#include "events.h"
#include "files.h"
#include "link.h"
#include "paths.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ENTRIES_A_STEP = 256, /* so that other requests are served between */
    DEPTH_MAX = 128,      /* directories that one REMOVE holds open */
    ENTRIES_MAX = 1 << 24, /* looks at entries that one REMOVE takes: somebody may fill what it empties */
};

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* LIST */

struct listing {
    struct request request;
    DIR *directory;
    uint64_t left, total;
};

static struct frame entries;

static void listing_close(struct listing *listing)
{
    closedir(listing->directory);
    request_close(&listing->request);
}

static void send_entries(uint32_t id)
{
    if (entries.length > FRAME_HEAD)
        link_send(entries.bytes, entries.length);
    channel_begin(&entries, KIND_ENTRY, id);
}

static void add_entry(struct listing *listing, const char *name)
{
    const struct layout *layout = channel_layout(KIND_ENTRY, false);
    struct value values[FIELDS_MAX] = {{0}};
    struct stat stat;
    if (fstatat(dirfd(listing->directory), name, &stat, AT_SYMLINK_NOFOLLOW))
        return; /* gone meanwhile */
    files_info(&stat, values);
    values[6].bytes = (const uint8_t *)name;
    values[6].length = (uint32_t)strlen(name);
    if (!channel_append(&entries, layout, values)) {
        send_entries(listing->request.id);
        channel_append(&entries, layout, values);
    }
    listing->total++;
    listing->left--;
}

static void listing_step(struct request *request)
{
    struct listing *listing = container_of(request, struct listing, request);
    struct dirent *entry = NULL;
    channel_begin(&entries, KIND_ENTRY, request->id);
    for (int i = 0; i < ENTRIES_A_STEP && listing->left; i++) {
        entry = readdir(listing->directory);
        if (!entry)
            break;
        if (!is_dots(entry->d_name))
            add_entry(listing, entry->d_name);
    }
    send_entries(request->id);
    if (entry && listing->left)
        return;
    struct value total = {.number = listing->total};
    reply(request->id, KIND_END, &total);
    listing_close(listing);
}

static void listing_cancel(struct request *request)
{
    reply_failed(request->id, ECANCELED, "list");
    listing_close(container_of(request, struct listing, request));
}

static const struct request_calls listing_calls = {.cancel = listing_cancel, .step = listing_step};

void list_begin(uint32_t id, const struct value *values)
{
    struct listing *listing = calloc(1, sizeof *listing);
    char *path = text_of(&values[LIST_PATH]);
    int fd = listing && path ? path_open(path, O_RDONLY | O_DIRECTORY) : -1;
    if (fd >= 0)
        listing->directory = fdopendir(fd);
    if (fd < 0 || !listing->directory) {
        reply_failed(id, errno, "list");
        if (fd >= 0)
            close(fd);
        free(listing);
    } else {
        listing->left = values[LIST_LIMIT].number ? values[LIST_LIMIT].number : UINT64_MAX;
        request_open(&listing->request, id, &listing_calls);
        listing->request.runnable = true;
    }
    free(path);
}

/* REMOVE: a stack of open directories. Each is emptied, then removed from the one below it by its name. */

struct removal {
    struct request request;
    struct place place;
    char *path;
    unsigned depth, looks;
    struct {
        DIR *directory;
        char name[NAME_MAX + 1];
    } stack[DEPTH_MAX];
};

static void removal_close(struct removal *removal)
{
    while (removal->depth)
        closedir(removal->stack[--removal->depth].directory);
    if (removal->place.directory >= 0)
        close(removal->place.directory);
    free(removal->path);
}

/* Opens the directory `name` of `parent` and goes into it. A link put in its place is not followed. */
static bool descend(struct removal *removal, int parent, const char *name)
{
    if (removal->depth == DEPTH_MAX || strlen(name) > NAME_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    removal->stack[removal->depth].directory = directory;
    strcpy(removal->stack[removal->depth].name, name);
    removal->depth++;
    return true;
}

/* The top directory has been read to its end: removes it, or reads it again if somebody filled it meanwhile. */
static bool ascend(struct removal *removal)
{
    unsigned top = removal->depth - 1;
    int parent = top ? dirfd(removal->stack[top - 1].directory) : removal->place.directory;
    if (!unlinkat(parent, removal->stack[top].name, AT_REMOVEDIR) || errno == ENOENT) {
        closedir(removal->stack[top].directory);
        removal->depth--;
        return true;
    }
    rewinddir(removal->stack[top].directory);
    return errno == ENOTEMPTY;
}

static bool remove_one(struct removal *removal)
{
    DIR *directory = removal->stack[removal->depth - 1].directory;
    if (removal->looks++ == ENTRIES_MAX) {
        errno = EBUSY;
        return false;
    }
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (!entry)
        return errno ? false : ascend(removal);
    if (is_dots(entry->d_name))
        return true;
    if (entry->d_type != DT_DIR && (!unlinkat(dirfd(directory), entry->d_name, 0) || errno == ENOENT))
        return true;
    if (entry->d_type != DT_DIR && errno != EISDIR)
        return false;
    return descend(removal, dirfd(directory), entry->d_name) || errno == ENOENT || errno == ENOTDIR ||
           errno == ELOOP;
}

static void removal_end(struct removal *removal, int error)
{
    if (error)
        reply_failed(removal->request.id, error, "remove");
    else
        reply_ok(removal->request.id);
    removal_close(removal);
    request_close(&removal->request);
}

static void removal_step(struct request *request)
{
    struct removal *removal = container_of(request, struct removal, request);
    for (int i = 0; i < ENTRIES_A_STEP && removal->depth; i++)
        if (!remove_one(removal)) {
            removal_end(removal, errno);
            return;
        }
    if (!removal->depth)
        removal_end(removal, 0);
}

static void removal_cancel(struct request *request)
{
    removal_end(container_of(request, struct removal, request), ECANCELED);
}

static const struct request_calls removal_calls = {.cancel = removal_cancel, .step = removal_step};

/* Answers what one call removes; true when a tree is to be walked. */
static bool needs_walk(struct removal *removal, uint32_t id, const struct value *values)
{
    removal->path = text_of(&values[REMOVE_PATH]);
    if (!removal->path || !path_split(removal->path, &removal->place)) {
        reply_failed(id, errno, "remove");
        return false;
    }
    int parent = removal->place.directory;
    const char *name = removal->place.name;
    if (!unlinkat(parent, name, 0) || (errno == EISDIR && !unlinkat(parent, name, AT_REMOVEDIR))) {
        reply_ok(id);
        return false;
    }
    if (errno == ENOTEMPTY && values[REMOVE_FLAGS].number & REMOVE_RECURSIVE &&
        descend(removal, parent, name))
        return true;
    reply_failed(id, errno, "remove");
    return false;
}

void remove_begin(uint32_t id, const struct value *values)
{
    struct removal *removal = calloc(1, sizeof *removal);
    if (!removal) {
        reply_failed(id, ENOMEM, "remove");
        return;
    }
    removal->place.directory = -1;
    if (!needs_walk(removal, id, values)) {
        removal_close(removal);
        free(removal);
        return;
    }
    request_open(&removal->request, id, &removal_calls);
    removal->request.runnable = true;
}
