/* A small room for a program that is only half trusted: QEMU. */
#ifndef HANDIWORK_JAIL_H
#define HANDIWORK_JAIL_H

/* `jail OPTIONS -- PROGRAM ARGUMENTS`: runs a program in it and stays until it has ended; returns its exit code. */
int jail(int argc, char **argv);

#endif
