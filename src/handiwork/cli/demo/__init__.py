"""`handiwork demo`: the main job, told live, each claim checked."""
