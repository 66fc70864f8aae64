"""Measures indexes on real histories and chooses one."""
