"""Measures indexes on real histories, and chooses the fastest that finds enough."""
