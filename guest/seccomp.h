/* The system calls that exist inside: an allow-list by name. What is not listed answers ENOSYS. */
#ifndef HANDIWORK_SECCOMP_H
#define HANDIWORK_SECCOMP_H

/* Installs the filter for this process and all it starts. no_new_privs must be set. */
void seccomp_install(void);

#endif
