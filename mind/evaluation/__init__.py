"""Measures how good a model is: exact search, baselines, metrics, and the report."""
