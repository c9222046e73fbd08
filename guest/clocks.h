/* Clocks that count from the start of the sandbox, not of the host. */
#pragma once

/*
 * Enters a time namespace whose monotonic and boot clocks begin within their first two seconds, together with all who
 * will be started. Where the kernel has none the host's clocks stay, and the driver tells; one that allows no more of
 * them ends the program.
 * One thread, all capabilities of the user namespace, our own /proc.
 */
void clocks_restart(void);
