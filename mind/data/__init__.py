"""Interactions from files and archives to what training and evaluation read; item features."""
