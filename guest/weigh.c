#define _GNU_SOURCE
#include "weigh.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 2048, FIRST_ROOM = 1024 }; /* directories that are open at once; of linked inodes, a power of two */

struct scale {
    const struct weight *most;
    struct weight *found;
    uint64_t *linked; /* inodes with several names that were counted, by their hash; 0: free */
    size_t count, room;
};

bool weight_is_over(const struct weight *found, const struct weight *most)
{
    return found->bytes > most->bytes || found->files > most->files;
}

static size_t place_of(const uint64_t *linked, size_t room, uint64_t inode)
{
    size_t at = (size_t)(inode * 0x9E3779B97F4A7C15u) & (room - 1);
    while (linked[at] && linked[at] != inode)
        at = (at + 1) & (room - 1);
    return at;
}

static bool make_room(struct scale *scale)
{
    size_t room = scale->room ? scale->room * 2 : FIRST_ROOM;
    uint64_t *larger = calloc(room, sizeof *larger);
    if (!larger)
        return false;
    for (size_t i = 0; i < scale->room; i++)
        if (scale->linked[i])
            larger[place_of(larger, room, scale->linked[i])] = scale->linked[i];
    free(scale->linked);
    scale->linked = larger;
    scale->room = room;
    return true;
}

/* Where memory is short an inode is counted once more: rather too much than too little. */
static bool was_counted(struct scale *scale, uint64_t inode)
{
    if (scale->count * 2 >= scale->room && !make_room(scale))
        return false;
    size_t at = place_of(scale->linked, scale->room, inode);
    if (scale->linked[at])
        return true;
    scale->linked[at] = inode;
    scale->count++;
    return false;
}

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool add_directory(struct scale *scale, int directory, int depth);

/* What was there a moment ago may be gone, or something else. */
static bool add_below(struct scale *scale, int above, const char *name, int depth)
{
    if (depth == DEPTH_MAX)
        return false;
    int directory = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    return add_directory(scale, directory, depth);
}

static bool add_entry(struct scale *scale, int above, const char *name, int depth)
{
    struct stat stat;
    if (fstatat(above, name, &stat, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT;
    bool directory = S_ISDIR(stat.st_mode);
    if (!directory && stat.st_nlink > 1 && was_counted(scale, stat.st_ino))
        return true;
    scale->found->files++;
    scale->found->bytes += (uint64_t)stat.st_blocks * 512;
    return !directory || add_below(scale, above, name, depth + 1);
}

static bool add_directory(struct scale *scale, int directory, int depth)
{
    DIR *open = fdopendir(directory);
    bool seen = open != NULL;
    if (!open)
        close(directory);
    for (struct dirent *entry; seen && !weight_is_over(scale->found, scale->most) && (entry = readdir(open));)
        if (!is_dots(entry->d_name))
            seen = add_entry(scale, directory, entry->d_name, depth);
    if (open)
        closedir(open);
    return seen;
}

bool weigh(int directory, const struct weight *most, struct weight *found)
{
    struct scale scale = {.most = most, .found = found};
    bool seen = add_directory(&scale, directory, 0);
    free(scale.linked);
    return seen;
}
