"""Reads interactions from files and archives, and writes what training and evaluation read; reads item features."""
