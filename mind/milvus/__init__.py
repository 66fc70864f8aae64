"""Everything that server and indexer share about Milvus; the only package that imports pymilvus.

contract     collection, journal, users, records: names, fields and plain values, without pymilvus
schemas      the contract as Milvus' schemas
connection   where Milvus is and how to get in; options: the same as options of commands
errors       what can go wrong; translation: which of it an error of pymilvus or gRPC means
lite         why a Milvus Lite file cannot be opened
internals    the private parts of pymilvus that we use
wire         searches as bytes
session, store, user_store, record_store  for the indexer: blocking calls
aio_session, aio_store, aio_user_store    for the server: asyncio
"""
