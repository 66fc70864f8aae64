"""What a call meets first: transport, tokens, limits, and the servicers."""
