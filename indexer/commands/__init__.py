"""The commands of `python -m indexer`: options in, lines out."""
