"""How the network learns: examples, the loop, checkpoints, several processes."""
