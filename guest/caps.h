/* The few capabilities that root inside keeps, over the sandbox's own files, users and ports. */
#ifndef HANDIWORK_CAPS_H
#define HANDIWORK_CAPS_H

/* Reduces every set of the calling process to the short list; none can come back. */
void caps_drop(void);

/* The same, but the calling process itself keeps one more, which no program it starts can get. */
void caps_drop_but(int own);

/* Makes every permitted capability effective again, which a change of the effective id has made ineffective. */
void caps_raise(void);

#endif
