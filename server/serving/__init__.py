"""The serving path: from a question to ranked candidates. `pipeline` shows it from top to bottom."""
