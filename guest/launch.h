/* The launcher: makes the namespaces, and waits for the agent that runs in them. */
#ifndef HANDIWORK_LAUNCH_H
#define HANDIWORK_LAUNCH_H

#include "options.h"

/* Launches a sandbox and stays until it has ended; the arguments are wiped inside. Returns the exit code. */
int launch(struct options *options, int argc, char **argv);

/* The agent's last steps, which it makes in every tier: */

/* No core dump program of the host's, and as many descriptors as are allowed. */
void set_own_limits(void);

/* Takes the command line and the environment out of everybody's sight. */
void wipe_arguments(int argc, char **argv);

/* /dev/null in the place of what it was started with. */
void quiet_standard_descriptors(void);

#endif
