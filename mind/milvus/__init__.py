"""Everything that server and indexer share about Milvus; the only package that imports pymilvus.

contract     collection, journal, users, records: names, fields and plain values, without pymilvus
schemas      the contract as Milvus' schemas
connection   where Milvus is and how to get in
errors       what can go wrong, and what an error of Milvus or gRPC means
internals    the private parts of pymilvus that we use
wire         searches as bytes
session, store, user_store              for the indexer: blocking calls
aio_session, aio_store, aio_user_store  for the server: asyncio
"""
