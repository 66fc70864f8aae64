"""Remembered users in a release: encoded before servers switch to it."""
