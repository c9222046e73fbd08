/* An image in one file: mounted without a place in any tree, so that nothing is left when its holder ends. */
#ifndef HANDIWORK_EROFS_H
#define HANDIWORK_EROFS_H

/* Mounts the file and sends the mount's descriptor over the inherited socket; returns the exit code. */
int erofs_mount(const char *channel, const char *file);

#endif
