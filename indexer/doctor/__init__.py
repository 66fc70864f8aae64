"""Examines a Milvus: what it is, and whether what this project asks of it works."""
