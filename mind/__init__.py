"""MIND, the multi-interest network with dynamic routing (Li et al., arXiv 1904.08030), from interactions to artifact.

Knows nothing of gRPC, protobuf or Milvus. What the indexer and the server must agree on is plain data in
`mind.milvus.collection`. Importing this package imports no Paddle.
"""
