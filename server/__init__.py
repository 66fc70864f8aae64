"""The gRPC service `recall.v1.RecallService`: validate, encode, search, merge.

Depends on `mind` and `protos`. Importing it imports no Paddle; a CPU server never does.
"""
