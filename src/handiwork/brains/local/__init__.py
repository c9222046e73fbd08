"""A CMA-compatible server of our own."""
