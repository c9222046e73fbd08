"""What a session's metadata asks to have in its workspace before the first tool runs."""
