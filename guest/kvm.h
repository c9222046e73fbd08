/* Whether this host's /dev/kvm runs guests: a thing that its mere presence does not say. */
#ifndef HANDIWORK_KVM_H
#define HANDIWORK_KVM_H

/* Runs a loop of a quarter of a million instructions as a guest; prints `kvm ok N` (ps for each) or the reason. */
int kvm_probe(void);

#endif
