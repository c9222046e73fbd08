/* Pid 1 of a virtual machine: makes of it a small host of one sandbox, and serves the host's few orders. */
#ifndef HANDIWORK_INIT_H
#define HANDIWORK_INIT_H

/* Never returns: the end of the sandbox is the end of the machine. */
_Noreturn void init(int argc, char **argv);

/* Says why on the console and ends the machine; `error` 0: no reason but the host's leaving. */
_Noreturn void init_end(const char *step, int error);

#endif
