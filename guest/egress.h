/* Connections to the sandbox's only exit, each opened by the head that says where it is meant to go. */
#ifndef HANDIWORK_EGRESS_H
#define HANDIWORK_EGRESS_H

#include <sys/socket.h>

enum flow_kind { FLOW_TCP = 1, FLOW_DNS = 2 };

/* The O_PATH descriptor of the socket, or -1: every connection is refused. */
void egress_open(int socket);

/* The same where the exit's socket cannot be reached from here: connections come through this door (door.h). */
void egress_open_door(int socket);

/* Connects to the exit without a word; errno is as below. */
int egress_reach(void);

/*
 * Connects and sends the head; the other side will answer one byte. Returns a non-blocking socket, or -1 with
 * errno: EAGAIN when the other side is behind with accepting, anything else when it is not there.
 */
int egress_connect(enum flow_kind kind, const struct sockaddr_storage *destination);

#endif
