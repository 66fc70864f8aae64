"""The night shift: one command for a scheduler that prepares, trains, compares, releases, watches and rolls back."""
