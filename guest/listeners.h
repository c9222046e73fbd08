/* Sockets that programs inside listen on for TCP, and which process has them. */
#ifndef HANDIWORK_LISTENERS_H
#define HANDIWORK_LISTENERS_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { LISTENERS_MAX = 512 };

struct listener {
    unsigned long inode;
    uint32_t uid, family, port; /* family: 4 or 6 */
    char address[INET6_ADDRSTRLEN];
    bool owned; /* some process was found to have it */
};

struct listeners {
    struct listener all[LISTENERS_MAX];
    size_t count;
};

/* Finds those there are, but for the agent's own; what is over the limit is left out. */
void listeners_find(struct listeners *listeners);

typedef void listener_call(void *context, pid_t pid, const struct listener *listener);

/* Calls back for each that the process has open, as far as its owner may look at its descriptors. */
void listeners_of(struct listeners *listeners, pid_t pid, uid_t uid, gid_t gid, listener_call *call,
                  void *context);

#endif
