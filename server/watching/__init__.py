"""Metrics, traces, samples of recall, and the format of logs."""
