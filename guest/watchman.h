/* Stops a sandbox whose files outgrow their limit, where no disk of their own bounds them. It is soft: what is written
 * between two looks is there. */
#ifndef HANDIWORK_WATCHMAN_H
#define HANDIWORK_WATCHMAN_H

#include "options.h"

/*
 * Stays in the launcher until the agent has ended, which remains to be waited for. Over the limit the agent is killed,
 * after one line on stderr that says why: `handiwork-guest: disk: …`.
 */
void watchman_stay(const struct options *options, int agent);

#endif
