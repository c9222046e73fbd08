"""Snapshots of sandboxes: taken, made again, kept as long as they are wanted."""
