"""Compares models by their manifests, and searches for settings."""
