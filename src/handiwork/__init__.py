"""Handiwork: the hands of AI agents, on machines their owners control."""

__version__ = "0.1.0"
