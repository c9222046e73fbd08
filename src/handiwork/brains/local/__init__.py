"""A small server of our own that speaks the protocol of Claude Managed Agents."""
