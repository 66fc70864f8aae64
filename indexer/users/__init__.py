"""Remembered users in a release: the indexer encodes them before servers switch to it."""
