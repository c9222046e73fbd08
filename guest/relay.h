/* Bytes of the channel between its virtio port and the socket that the agent serves. */
#ifndef HANDIWORK_RELAY_H
#define HANDIWORK_RELAY_H

/* Moves bytes both ways until one side is gone, which ends the machine. Both become its own. */
void relay_serve(int port, int socket);

#endif
