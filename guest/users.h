/* A user namespace of our own, in which we are root. */
#ifndef HANDIWORK_USERS_H
#define HANDIWORK_USERS_H

/* Enters one, and others beside it (CLONE_NEW…); what is ours outside is root's inside. Ends the program if it cannot. */
void users_enter(int namespaces);

#endif
