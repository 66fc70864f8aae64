"""The release procedure: which collection is live, and how the next one becomes it."""
