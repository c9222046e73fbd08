#define _GNU_SOURCE
#include "listeners.h"

#include "netns.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

enum { TCP_LISTEN = 10, LINES_MAX = 4096, DESCRIPTORS_MAX = 65536 };

/* Words of four bytes in the machine's order, each told as a number: 0100007F is 127.0.0.1. */
static bool read_address(const char *digits, struct listener *listener)
{
    uint8_t bytes[16];
    size_t length = strlen(digits) / 2;
    listener->family = length == 4 ? 4 : 6;
    if (length != 4 && length != 16)
        return false;
    for (size_t i = 0; i < length / 4; i++) {
        char word[9] = {0};
        memcpy(word, digits + 8 * i, 8);
        uint32_t value = (uint32_t)strtoul(word, NULL, 16);
        memcpy(bytes + 4 * i, &value, 4);
    }
    return inet_ntop(length == 4 ? AF_INET : AF_INET6, bytes, listener->address, sizeof listener->address);
}

static bool is_agents_own(const struct listener *listener)
{
    bool capture = listener->port == CAPTURE_PORT || listener->port == CAPTURE_DNS_PORT;
    return capture && (!strcmp(listener->address, "127.0.0.1") || !strcmp(listener->address, "::1"));
}

static void add_line(struct listeners *listeners, const char *line)
{
    struct listener found = {0};
    char digits[33];
    unsigned state;
    if (listeners->count == LISTENERS_MAX ||
        sscanf(line, "%*u: %32[0-9A-F]:%x %*s %x %*s %*s %*s %u %*u %lu", digits, &found.port, &state, &found.uid,
               &found.inode) != 5)
        return;
    if (state == TCP_LISTEN && read_address(digits, &found) && !is_agents_own(&found))
        listeners->all[listeners->count++] = found;
}

/* The kernel tells those that listen first, so that a bound on the lines misses none of them. */
static void read_table(struct listeners *listeners, const char *path)
{
    char line[512];
    FILE *table = fopen(path, "re");
    for (int i = 0; table && i < LINES_MAX && fgets(line, sizeof line, table); i++)
        add_line(listeners, line);
    if (table)
        fclose(table);
}

void listeners_find(struct listeners *listeners)
{
    listeners->count = 0;
    read_table(listeners, "/proc/net/tcp");
    read_table(listeners, "/proc/net/tcp6");
}

static struct listener *by_inode(struct listeners *listeners, unsigned long inode)
{
    for (size_t i = 0; i < listeners->count; i++)
        if (listeners->all[i].inode == inode)
            return &listeners->all[i];
    return NULL;
}

static struct listener *behind(struct listeners *listeners, int directory, const char *name)
{
    char target[64];
    unsigned long inode;
    ssize_t length = readlinkat(directory, name, target, sizeof target - 1);
    if (length <= 0)
        return NULL;
    target[length] = 0;
    return sscanf(target, "socket:[%lu]", &inode) == 1 ? by_inode(listeners, inode) : NULL;
}

/* Their owner may look at a process's descriptors; the agent has no capability to look at those of others. */
static DIR *open_descriptors(pid_t pid, uid_t uid, gid_t gid)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    setfsgid(gid);
    setfsuid(uid);
    return opendir(path);
}

void listeners_of(struct listeners *listeners, pid_t pid, uid_t uid, gid_t gid, listener_call *call,
                  void *context)
{
    DIR *descriptors = listeners->count ? open_descriptors(pid, uid, gid) : NULL;
    struct dirent *entry;
    for (int i = 0; descriptors && i < DESCRIPTORS_MAX && (entry = readdir(descriptors)); i++) {
        struct listener *listener = behind(listeners, dirfd(descriptors), entry->d_name);
        if (listener) {
            listener->owned = true;
            call(context, pid, listener);
        }
    }
    if (descriptors)
        closedir(descriptors);
    setfsuid(0);
    setfsgid(0);
}
