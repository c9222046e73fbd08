#define _GNU_SOURCE
#include "transfer.h"

#include "agent.h"
#include "events.h"
#include "link.h"
#include "paths.h"

#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* READ */

struct reading {
    struct request request;
    int fd;
    off_t at;
    uint64_t left, total;
};

static uint8_t chunk[FRAME_HEAD + PAYLOAD_MAX];

static void reading_close(struct reading *reading)
{
    close(reading->fd);
    request_close(&reading->request);
}

static void reading_update(struct request *request)
{
    request->runnable = request->credit > 0;
}

static void reading_step(struct request *request)
{
    struct reading *reading = container_of(request, struct reading, request);
    uint64_t most = request->credit < PAYLOAD_MAX ? request->credit : PAYLOAD_MAX;
    if (reading->left < most)
        most = reading->left;
    ssize_t got = most ? pread(reading->fd, chunk + FRAME_HEAD, (size_t)most, reading->at) : 0;
    if (got < 0) {
        reply_failed(request->id, errno, "read");
        reading_close(reading);
        return;
    }
    if (got == 0) {
        struct value total = {.number = reading->total};
        reply(request->id, KIND_END, &total);
        reading_close(reading);
        return;
    }
    channel_head(chunk, KIND_BODY, request->id, (uint32_t)got);
    link_send(chunk, FRAME_HEAD + (size_t)got);
    reading->at += got;
    reading->total += (uint64_t)got;
    reading->left -= (uint64_t)got;
    request->credit -= (uint64_t)got;
    reading_update(request);
}

static void reading_cancel(struct request *request)
{
    reply_failed(request->id, ECANCELED, "read");
    reading_close(container_of(request, struct reading, request));
}

static const struct request_calls reading_calls = {
    .resume = reading_update,
    .cancel = reading_cancel,
    .step = reading_step,
};

void read_begin(uint32_t id, const struct value *values)
{
    struct reading *reading = calloc(1, sizeof *reading);
    char *path = text_of(&values[READ_PATH]);
    int fd = reading && path ? path_open_file(path, O_RDONLY) : -1;
    int error = errno;
    free(path);
    if (fd >= 0 && values[READ_OFFSET].number > INT64_MAX) {
        close(fd);
        fd = -1;
        error = EINVAL;
    }
    if (fd < 0) {
        free(reading);
        reply_failed(id, error, "open");
        return;
    }
    reading->fd = fd;
    reading->at = (off_t)values[READ_OFFSET].number;
    reading->left = values[READ_LIMIT].number ? values[READ_LIMIT].number : UINT64_MAX;
    request_open(&reading->request, id, &reading_calls);
    reading_update(&reading->request);
}

/* WRITE */

struct writing {
    struct request request;
    struct place place; /* of the file; the path it points into is `path` */
    char *path;
    char beside[40]; /* the unfinished file's name; empty when appending */
    int fd;
    bool exclusive;
};

static void writing_close(struct writing *writing)
{
    if (*writing->beside)
        unlinkat(writing->place.directory, writing->beside, 0);
    if (writing->fd >= 0)
        close(writing->fd);
    if (writing->place.directory >= 0)
        close(writing->place.directory);
    free(writing->path);
}

static void writing_fail(struct writing *writing, int error)
{
    reply_failed(writing->request.id, error, "write");
    writing_close(writing);
    request_close(&writing->request);
}

static bool put_in_place(struct writing *writing)
{
    int directory = writing->place.directory;
    unsigned flags = writing->exclusive ? RENAME_NOREPLACE : 0;
    if (!*writing->beside)
        return true;
    if (syscall(SYS_renameat2, directory, writing->beside, directory, writing->place.name, flags))
        return false;
    *writing->beside = 0;
    return true;
}

static void writing_input(struct request *request, enum kind kind, const struct value *data)
{
    struct writing *writing = container_of(request, struct writing, request);
    if (kind != KIND_DATA)
        return;
    for (size_t at = 0; at < data->length;) {
        ssize_t took = write(writing->fd, data->bytes + at, data->length - at);
        if (took <= 0) {
            writing_fail(writing, took ? errno : EIO);
            return;
        }
        at += (size_t)took;
    }
    request_consumed(request, data->length);
    if (data->length)
        return;
    if (!put_in_place(writing)) {
        writing_fail(writing, errno);
        return;
    }
    reply_ok(request->id);
    writing_close(writing);
    request_close(request);
}

static void writing_cancel(struct request *request)
{
    writing_fail(container_of(request, struct writing, request), ECANCELED);
}

static const struct request_calls writing_calls = {.input = writing_input, .cancel = writing_cancel};

static bool open_appending(struct writing *writing, const struct value *values)
{
    /* O_NOFOLLOW: whoever appends names the file itself; a planted link is refused. */
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    struct stat stat;
    int existing = openat(writing->place.directory, writing->place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (existing >= 0) {
        bool regular = !fstat(existing, &stat) && S_ISREG(stat.st_mode);
        close(existing);
        errno = writing->exclusive ? EEXIST : EINVAL;
        if (writing->exclusive || !regular)
            return false;
    }
    flags |= existing < 0 ? O_EXCL : 0;
    writing->fd = openat(writing->place.directory, writing->place.name, flags, 0600);
    if (writing->fd < 0 || fstat(writing->fd, &stat) || !S_ISREG(stat.st_mode))
        return false;
    return existing >= 0 ||
           (!fchown(writing->fd, (uid_t)values[WRITE_UID].number, (gid_t)values[WRITE_GID].number) &&
            !fchmod(writing->fd, (mode_t)values[WRITE_MODE].number & 07777));
}

static bool open_beside(struct writing *writing, const struct value *values)
{
    uint64_t number;
    struct stat stat;
    int directory = writing->place.directory;
    if (!fstatat(directory, writing->place.name, &stat, AT_SYMLINK_NOFOLLOW)) {
        /* Known now rather than after the whole body; the rename decides again. */
        errno = writing->exclusive ? EEXIST : EISDIR;
        if (writing->exclusive || S_ISDIR(stat.st_mode))
            return false;
    }
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return false;
    snprintf(writing->beside, sizeof writing->beside, ".handiwork-%016llx", (unsigned long long)number);
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    writing->fd = openat(directory, writing->beside, flags, 0600);
    if (writing->fd < 0)
        *writing->beside = 0;
    return writing->fd >= 0 &&
           !fchown(writing->fd, (uid_t)values[WRITE_UID].number, (gid_t)values[WRITE_GID].number) &&
           !fchmod(writing->fd, (mode_t)values[WRITE_MODE].number & 07777);
}

static bool writing_open(struct writing *writing, const struct value *values)
{
    struct owner owner = {(uid_t)values[WRITE_UID].number, (gid_t)values[WRITE_GID].number};
    uint64_t flags = values[WRITE_FLAGS].number;
    writing->exclusive = flags & WRITE_EXCLUSIVE;
    writing->path = text_of(&values[WRITE_PATH]);
    if (!writing->path)
        return false;
    if (flags & WRITE_PARENTS && !path_make_parents(writing->path, &owner))
        return false;
    if (!path_split(writing->path, &writing->place))
        return false;
    return flags & WRITE_APPEND ? open_appending(writing, values) : open_beside(writing, values);
}

void write_begin(uint32_t id, const struct value *values)
{
    struct writing *writing = calloc(1, sizeof *writing);
    if (!writing) {
        reply_failed(id, ENOMEM, "open");
        return;
    }
    writing->fd = writing->place.directory = -1;
    if (!writing_open(writing, values)) {
        reply_failed(id, errno, "open");
        writing_close(writing);
        free(writing);
        return;
    }
    request_open(&writing->request, id, &writing_calls);
}
