"""The commands of `python -m indexer`. They read options, call the library and print the result."""
