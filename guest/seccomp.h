/* The system calls that exist inside: an allow-list by name. What is not listed answers ENOSYS. */
#ifndef HANDIWORK_SECCOMP_H
#define HANDIWORK_SECCOMP_H

/* Writes the filter, which changes nothing yet: what can be done before it is wanted. */
void seccomp_prepare(void);

/* Installs the filter for this process and all it starts. no_new_privs must be set. */
void seccomp_install(void);

/* For gVisor, before the filter is written: it would let a guest kill the first process, whose signals Linux drops. */
void seccomp_for_gvisor(void);

#endif
