/* `probe`: proves what the launcher needs by doing it, one line each. */
#ifndef HANDIWORK_PROBE_H
#define HANDIWORK_PROBE_H

/* Prints `NAME ok` or `NAME failed REASON` for each; returns 0 when everything needed works, else 1. */
int probe(void);

#endif
