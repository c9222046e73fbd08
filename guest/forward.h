/* The capture's TCP side: each connection becomes a flow over the exit. */
#ifndef HANDIWORK_FORWARD_H
#define HANDIWORK_FORWARD_H

/* Opens the listeners, of DNS datagrams too. `exit_socket` is an O_PATH descriptor, or -1: all is refused. */
void forward_serve(int exit_socket);

#endif
