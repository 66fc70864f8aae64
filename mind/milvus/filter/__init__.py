"""The filter language: what callers may write, and the one way in which it is written for Milvus."""
