"""Examines a Milvus: what it is, and whether everything works that this project uses."""
