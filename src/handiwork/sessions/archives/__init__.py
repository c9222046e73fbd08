"""Archives from strangers as lists of files: our own readers, strict and bounded, without I/O."""
