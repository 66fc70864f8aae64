"""Everything that server and indexer share about Milvus; the only package that imports pymilvus."""
