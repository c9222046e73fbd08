"""The microvm tier: a virtual machine that is a small host of one sandbox."""
