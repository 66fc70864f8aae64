"""The outer part of the service: transport, tokens, limits, and the servicers."""
