"""Reading an ext4 file system as a file, in our own words: who wrote it may be anybody, and no kernel mounts it."""
