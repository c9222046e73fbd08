/*
 * The network inside: loopback and nothing else, with rules that lead every TCP connection and every DNS
 * question to the agent's listeners, and refuse the rest at once.
 *
 * The wall is the absent network card, not these rules: whoever undoes them reaches nothing at all.
 */
#ifndef HANDIWORK_NETNS_H
#define HANDIWORK_NETNS_H

enum { CAPTURE_PORT = 15001, CAPTURE_DNS_PORT = 15053 };

/* The address that programs see as their own besides 127.0.0.1. */
#define SANDBOX_ADDRESS 0x0a000002u

/* Needs CAP_NET_ADMIN over the network namespace; done before capabilities are dropped. */
void netns_capture(void);

#endif
