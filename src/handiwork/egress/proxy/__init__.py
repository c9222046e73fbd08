"""The data plane: from the first byte of a guest's connection to the last byte of the answer."""
