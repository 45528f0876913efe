"""Several commands or rooms in one story."""
