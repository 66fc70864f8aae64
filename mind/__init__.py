"""MIND, the multi-interest network with dynamic routing (Li et al., arXiv 1904.08030), from interactions to artifact.

This package knows nothing of gRPC or protobuf, and only `mind.milvus` uses pymilvus. Importing the package imports no
Paddle.
"""
