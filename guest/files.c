#define _GNU_SOURCE
#include "files.h"

#include "agent.h"
#include "paths.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INFO_FILE = 1, INFO_DIRECTORY = 2, INFO_LINK = 3, INFO_OTHER = 4 };

static uint64_t info_kind(mode_t mode)
{
    if (S_ISREG(mode))
        return INFO_FILE;
    if (S_ISDIR(mode))
        return INFO_DIRECTORY;
    return S_ISLNK(mode) ? INFO_LINK : INFO_OTHER;
}

void files_info(const struct stat *stat, struct value *values)
{
    int64_t mtime_ns = (int64_t)stat->st_mtim.tv_sec * 1000000000 + stat->st_mtim.tv_nsec;
    values[0].number = info_kind(stat->st_mode);
    values[1].number = stat->st_mode;
    values[2].number = (uint64_t)stat->st_size;
    values[3].number = (uint64_t)mtime_ns;
    values[4].number = stat->st_uid;
    values[5].number = stat->st_gid;
}

/* Answers OK or, by errno, FAILED. */
static void settle(uint32_t id, bool done, const char *what)
{
    if (done)
        reply_ok(id);
    else
        reply_failed(id, errno, what);
}

void files_stat(uint32_t id, const struct value *values)
{
    struct value info[FIELDS_MAX] = {{0}};
    struct stat stat;
    char *path = text_of(&values[STAT_PATH]);
    int follow = values[STAT_FLAGS].number & STAT_FOLLOW ? 0 : O_NOFOLLOW;
    int fd = path ? path_open(path, O_PATH | follow) : -1;
    if (fd < 0 || fstat(fd, &stat)) {
        reply_failed(id, errno, "stat");
    } else {
        files_info(&stat, info);
        reply(id, KIND_INFO, info);
    }
    if (fd >= 0)
        close(fd);
    free(path);
}

/* With MKDIR_PARENTS a directory that exists is as good as one that was made. */
static bool make_directories(const char *path, const struct value *values)
{
    struct owner owner = {(uid_t)values[MKDIR_UID].number, (gid_t)values[MKDIR_GID].number};
    bool parents = values[MKDIR_FLAGS].number & MKDIR_PARENTS;
    struct stat stat;
    if (parents && !path_make_parents(path, &owner))
        return false;
    if (path_make_directory(path, (mode_t)values[MKDIR_MODE].number, &owner))
        return true;
    if (!parents || errno != EEXIST)
        return false;
    int fd = path_open(path, O_PATH);
    bool directory = fd >= 0 && !fstat(fd, &stat) && S_ISDIR(stat.st_mode);
    if (fd >= 0)
        close(fd);
    errno = EEXIST;
    return directory;
}

void files_mkdir(uint32_t id, const struct value *values)
{
    char *path = text_of(&values[MKDIR_PATH]);
    settle(id, path && make_directories(path, values), "mkdir");
    free(path);
}

void files_move(uint32_t id, const struct value *values)
{
    struct place from = {.directory = -1}, to = {.directory = -1};
    char *source = text_of(&values[MOVE_FROM]);
    char *target = text_of(&values[MOVE_TO]);
    bool moved = source && target && path_split(source, &from) && path_split(target, &to) &&
                 !renameat(from.directory, from.name, to.directory, to.name);
    settle(id, moved, "move");
    if (from.directory >= 0)
        close(from.directory);
    if (to.directory >= 0)
        close(to.directory);
    free(source);
    free(target);
}

/* The kernel knows the name of what is open; this needs no walk that the guest could change under way. */
void files_realpath(uint32_t id, const struct value *values)
{
    char link[64], name[PATH_MAX];
    char *path = text_of(&values[0]);
    int fd = path ? path_open(path, O_PATH) : -1;
    ssize_t length = -1;
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, name, sizeof name - 1);
        close(fd);
    }
    if (length < 0) {
        reply_failed(id, errno, "realpath");
    } else {
        name[length] = 0;
        reply_name(id, name);
    }
    free(path);
}
