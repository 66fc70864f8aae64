"""The batch job between a trained model and the service: build, verify, publish, roll back, prune."""
