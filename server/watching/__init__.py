"""Metrics, traces, samples and logs."""
