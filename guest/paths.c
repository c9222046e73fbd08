#define _GNU_SOURCE
#include "paths.h"

#include "resolve.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

static int close_with(int fd, int error)
{
    close(fd);
    errno = error;
    return -1;
}

int path_open(const char *path, int flags)
{
    int modes = O_CLOEXEC | (flags & O_PATH ? 0 : O_NONBLOCK | O_NOCTTY);
    struct open_how how = {.flags = (unsigned)(flags | modes), .resolve = RESOLVE_NO_MAGICLINKS};
    struct statfs system;
    if (*path != '/') {
        errno = EINVAL;
        return -1;
    }
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd < 0 && errno == ENOSYS)
        fd = resolve_open(path, flags | modes);
    if (fd < 0)
        return -1;
    if (fstatfs(fd, &system))
        return close_with(fd, errno);
    /* Files of /proc look regular, but reading one may block or show what only the agent may see. */
    if (system.f_type == PROC_SUPER_MAGIC)
        return close_with(fd, EACCES);
    return fd;
}

int path_open_file(const char *path, int flags)
{
    struct stat stat;
    int fd = path_open(path, flags);
    if (fd < 0)
        return -1;
    if (fstat(fd, &stat))
        return close_with(fd, errno);
    if (S_ISDIR(stat.st_mode))
        return close_with(fd, EISDIR);
    if (!S_ISREG(stat.st_mode))
        return close_with(fd, EINVAL);
    return fd;
}

bool path_split(char *path, struct place *place)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = 0;
    char *slash = strrchr(path, '/');
    if (*path != '/' || !slash[1] || !strcmp(slash + 1, ".") || !strcmp(slash + 1, "..")) {
        errno = EINVAL;
        return false;
    }
    place->name = slash + 1;
    *slash = 0;
    place->directory = path_open(slash == path ? "/" : path, O_PATH | O_DIRECTORY);
    return place->directory >= 0;
}

bool path_make_directory(const char *path, mode_t mode, const struct owner *owner)
{
    char copy[PATH_MAX];
    struct place place;
    if (strlen(path) >= sizeof copy) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(copy, path);
    if (!path_split(copy, &place))
        return false;
    bool made = !mkdirat(place.directory, place.name, 0700);
    int error = errno;
    if (made) {
        /* By descriptor: what was made, and not a link that has taken its place meanwhile. */
        int fd = openat(place.directory, place.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        made = fd >= 0 && !fchown(fd, owner->uid, owner->gid) && !fchmod(fd, mode & 07777);
        error = errno;
        if (fd >= 0)
            close(fd);
        if (!made)
            unlinkat(place.directory, place.name, AT_REMOVEDIR);
    }
    close(place.directory);
    errno = error;
    return made;
}

bool path_make_parents(const char *path, const struct owner *owner)
{
    char parent[PATH_MAX];
    if (strlen(path) >= sizeof parent) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (const char *slash = strchr(path + 1, '/'); *path && slash; slash = strchr(slash + 1, '/')) {
        size_t length = (size_t)(slash - path);
        if (!slash[strspn(slash, "/")])
            break; /* only slashes follow: this is the last name */
        memcpy(parent, path, length);
        parent[length] = 0;
        if (!path_make_directory(parent, 0755, owner) && errno != EEXIST && errno != EINVAL)
            return false;
    }
    return true;
}
