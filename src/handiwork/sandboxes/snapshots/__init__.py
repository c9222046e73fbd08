"""State of sandboxes kept elsewhere: chunks in sealed packs, and a manifest written last."""
