"""The night shift: prepare, train, compare, release, watch, roll back; one command that a scheduler runs."""
