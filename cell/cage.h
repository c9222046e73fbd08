/*
 * The cage, in two steps. What every cell of a zygote shares is done once, before the first fork: no files, no
 * network, no rights. What would keep the zygote from forking is done by each cell, before guest code runs.
 */
#ifndef HANDIWORK_CELL_CAGE_H
#define HANDIWORK_CELL_CAGE_H

#include <stdint.h>
#include <sys/types.h>

enum { CELL_SOCKET = 3 };

/* What holds for every cell of this zygote; the host is told. */
enum cage_bits {
    CAGE_FILTER = 1 << 0,
    CAGE_NO_FILES = 1 << 1,   /* an empty root, of which nothing leads away */
    CAGE_NO_NETWORK = 1 << 2, /* namespaces of its own: network, processes, mounts, IPC, names */
    CAGE_OWN_USER = 1 << 3,   /* an id that owns nothing on the host */
};

struct cage {
    int filter;        /* descriptor of the BPF program, an array of struct sock_filter */
    const char *root;  /* an empty directory, the place of the empty root */
    uid_t id;          /* 0: the caller's own */
    uint64_t data_bytes;
    unsigned threads;  /* how many a cell may have beside its first; 0: no other */
    unsigned engine_descriptors; /* how many the engine opens in a cell between the two steps below, and keeps */
};

/* Takes the zygote away from the host; returns the bits that hold. In the process that goes on. */
unsigned cage_zygote(const struct cage *cage);

/* Of a cell that was just forked: `socket` becomes CELL_SOCKET; what the engine opens then follows on it. */
void cage_take(int socket);

/* Locks it: nothing is open but that. */
void cage_cell(void);

#endif
