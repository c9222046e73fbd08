"""The nouns: frozen types and errors, no I/O."""
