/*
 * Loaded into programs of guests in a gVisor before 2023, which knows all of these calls but not the flag
 * AT_NO_AUTOMOUNT, without which nothing is different: there are no automounts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int statx(int directory, const char *restrict path, int flags, unsigned mask, struct statx *restrict found)
{
    return (int)syscall(SYS_statx, directory, path, flags & ~AT_NO_AUTOMOUNT, mask, found);
}

int fstatat(int directory, const char *restrict path, struct stat *restrict found, int flags)
{
    return (int)syscall(SYS_newfstatat, directory, path, found, flags & ~AT_NO_AUTOMOUNT);
}

int fstatat64(int directory, const char *restrict path, struct stat64 *restrict found, int flags)
{
    return (int)syscall(SYS_newfstatat, directory, path, found, flags & ~AT_NO_AUTOMOUNT);
}
