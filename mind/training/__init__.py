"""Trains the network: examples, the training loop, checkpoints and several processes."""
