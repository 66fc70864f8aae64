"""Measures indexes on real histories, and chooses the fastest index that reaches the wanted recall."""
