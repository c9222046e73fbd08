"""The isolate tier: a cell is one process that runs code, and has nothing but a socket to us."""
