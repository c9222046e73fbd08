/* openat2 with RESOLVE_NO_MAGICLINKS for kernels without it, of which gVisor is one. */
#ifndef HANDIWORK_RESOLVE_H
#define HANDIWORK_RESOLVE_H

/* Opens an absolute path name by name; a link in /proc is ELOOP, for it may lead to what the agent holds. */
int resolve_open(const char *path, int flags);

#endif
