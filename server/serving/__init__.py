"""The serving path: a question in, candidates out."""
