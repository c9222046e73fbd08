/* The exit inside a virtual machine: a unix socket whose connections become flows over one virtio port. */
#ifndef HANDIWORK_BRIDGE_H
#define HANDIWORK_BRIDGE_H

/* Listens at `path` and serves the port, which becomes its own. */
void bridge_serve(int port, const char *path);

#endif
