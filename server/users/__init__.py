"""Remembered users: their histories and their vectors."""
