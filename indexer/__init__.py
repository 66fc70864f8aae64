"""The batch job between training and serving: it builds, verifies, publishes, rolls back and prunes collections."""
