"""Which model to take: manifests compared, settings searched."""
