/*
 * The network inside gVisor, whose own stack this sets up: loopback and nothing else, and every address of the
 * world is this machine's own, so that connecting anywhere gets as far as the rules. They are those of
 * iptables, the only ones that gVisor has: TCP and DNS go to the agent's listeners, as in the other tiers.
 */
#ifndef HANDIWORK_NETSTACK_H
#define HANDIWORK_NETSTACK_H

/* Needs CAP_NET_ADMIN and CAP_NET_RAW inside; done before capabilities are dropped. */
void netstack_capture(void);

#endif
