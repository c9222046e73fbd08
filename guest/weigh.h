/* How much a tree of files takes, counted beneath open directories; the tree is hostile and changes meanwhile. */
#ifndef HANDIWORK_WEIGH_H
#define HANDIWORK_WEIGH_H

#include <stdbool.h>
#include <stdint.h>

enum { WEIGH_FILES = 2048 + 64 }; /* descriptors: one for each directory of the deepest tree, and our own */

struct weight {
    uint64_t bytes, files; /* blocks that are taken; inodes, of which a hard link is none */
};

/*
 * Adds what lies below a directory to *found, without following a link or opening what is no directory, and no further
 * than until one number is over its `most`. False when part of it cannot be seen: it is nested too deep, or closed.
 * Closes the directory.
 */
bool weigh(int directory, const struct weight *most, struct weight *found);

/* Whether one of the numbers is over. */
bool weight_is_over(const struct weight *found, const struct weight *most);

#endif
