/* The launcher: makes the namespaces, and waits for the agent that runs in them. */
#ifndef HANDIWORK_LAUNCH_H
#define HANDIWORK_LAUNCH_H

#include "options.h"

/* Launches a sandbox and stays until it has ended; the arguments are wiped inside. Returns the exit code. */
int launch(struct options *options, int argc, char **argv);

#endif
