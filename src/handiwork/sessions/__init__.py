"""Sessions from claim to sleep."""
