/*
 * Sandboxes that are made before they are wanted: everything stands but the last steps, hardening among them,
 * and waits for a claim, which says for whom. Before it no code but ours runs, and no way out is known.
 */
#ifndef HANDIWORK_CLAIM_H
#define HANDIWORK_CLAIM_H

#include <stdbool.h>

enum { CLAIM_NAME_BYTES = 64 };

struct claim {
    char hostname[CLAIM_NAME_BYTES + 1];
    int exit_socket; /* O_PATH descriptor of the egress socket, or -1: nothing leaves */
};

/* What is known without waiting; a name that is too long ends the program. */
void claim_by_options(struct claim *claim, const char *hostname, int exit_socket);

/* Says on the channel that all stands and a claim is waited for. */
void claim_say_ready(int channel);

/*
 * Waits for the claim: on the channel, or at the door of a sandbox in gVisor, where only a name comes, for the exit
 * stays outside. Ends the program when the other side ends first, or says something else.
 */
void claim_await(int socket, struct claim *claim);

/* Lets the one who waits at the door go on under this name; false when nobody is there any more. */
bool claim_pass(int door, const struct claim *claim);

/* Makes the one who waits on the channel this one's, as the host does; false when nobody is there any more. */
bool claim_give(int channel, const struct claim *claim);

/* Takes the name: needs CAP_SYS_ADMIN. */
void claim_take_name(const struct claim *claim);

#endif
