"""Isolated machines, one for each session."""
