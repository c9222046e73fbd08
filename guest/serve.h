/*
 * The agent as gVisor's first process. gVisor gives the namespaces, the root file system and the devices; the
 * channel comes as standard input and the door to the exit as standard output.
 */
#ifndef HANDIWORK_SERVE_H
#define HANDIWORK_SERVE_H

/* Serves until the channel ends. The arguments are options of PROTOCOL.md, section 4. */
_Noreturn void serve(int argc, char **argv);

#endif
