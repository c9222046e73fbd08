#define _GNU_SOURCE
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { LINKS_MAX = 40, STEP = O_PATH | O_NOFOLLOW | O_CLOEXEC };

/* A walk under way: where it is, and what is left of the path. */
struct walk {
    int directory;
    unsigned links;
    char left[2 * PATH_MAX];
};

static void move_to(struct walk *walk, int directory)
{
    if (walk->directory >= 0)
        close(walk->directory);
    walk->directory = directory;
}

static bool in_proc(int fd)
{
    struct statfs system;
    return fstatfs(fd, &system) || system.f_type == PROC_SUPER_MAGIC;
}

/* Takes the next name off the path; an empty one when nothing is left. */
static bool take_name(struct walk *walk, char *name)
{
    const char *start = walk->left + strspn(walk->left, "/");
    size_t length = strcspn(start, "/");
    if (length > NAME_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(name, start, length);
    name[length] = 0;
    start += length;
    memmove(walk->left, start, strlen(start) + 1);
    return true;
}

/* Puts a link's target before what is left. */
static bool follow(struct walk *walk, const char *name)
{
    char target[PATH_MAX], joined[sizeof walk->left];
    if (in_proc(walk->directory) || ++walk->links > LINKS_MAX) {
        errno = ELOOP;
        return false;
    }
    ssize_t length = readlinkat(walk->directory, name, target, sizeof target - 1);
    if (length < 0)
        return false;
    target[length] = 0;
    int size = snprintf(joined, sizeof joined, "%s%s", target, walk->left);
    if (size < 0 || (size_t)size >= sizeof joined) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(walk->left, joined, (size_t)size + 1);
    if (*target == '/')
        move_to(walk, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return walk->directory >= 0;
}

static bool is_link(int fd)
{
    struct stat stat;
    return !fstat(fd, &stat) && S_ISLNK(stat.st_mode);
}

/* One name further. True when the walk is over, with the descriptor or -1 in `*opened`. */
static bool step(struct walk *walk, int flags, int *opened)
{
    char name[NAME_MAX + 1];
    *opened = -1;
    if (!take_name(walk, name))
        return true;
    if (!*name) {
        *opened = openat(walk->directory, ".", flags & ~O_NOFOLLOW);
        return true;
    }
    int found = openat(walk->directory, name, STEP);
    bool last = !*walk->left;
    if (found < 0)
        return true;
    if (is_link(found) && !(last && flags & O_NOFOLLOW)) {
        close(found);
        return !follow(walk, name);
    }
    if (!last) {
        move_to(walk, found);
        return false;
    }
    close(found);
    *opened = openat(walk->directory, name, flags | O_NOFOLLOW);
    return true;
}

int resolve_open(const char *path, int flags)
{
    struct walk walk = {.directory = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)};
    int opened = -1;
    if (strlen(path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
    } else {
        strcpy(walk.left, path);
        while (walk.directory >= 0 && !step(&walk, flags, &opened))
            continue;
    }
    int error = errno;
    if (walk.directory >= 0)
        close(walk.directory);
    errno = error;
    return opened;
}
