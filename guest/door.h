/*
 * How the agent inside gVisor comes to its exit. No socket of the host can be reached from there; so whoever
 * watches the sandbox from outside connects, and hands the connection in over a socket that was there from the
 * start. A question is one byte; an answer is one byte, 0 with the connection's descriptor or an errno.
 */
#ifndef HANDIWORK_DOOR_H
#define HANDIWORK_DOOR_H

#include <stdbool.h>

/* Asks for a connection; waits for the answer, which is prompt. Returns a non-blocking socket, or -1 with errno. */
int door_ask(int door);

/* Answers one question with a connection, or with the errno for `fd` -1. False when nobody asks any more. */
bool door_answer(int door, int fd);

#endif
