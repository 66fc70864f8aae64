"""All that server and indexer share about Milvus. Only this package imports pymilvus.

collection, journal, users, records       the contract: names, fields and plain values, without pymilvus
schemas                                   the contract as schemas of Milvus
connection, options                       the address of Milvus and the credentials, as values and as command options
errors, translation                       our errors, and which of them an error of pymilvus or gRPC becomes
lite                                      finds out why a Milvus Lite file cannot be opened
internals                                 the private parts of pymilvus that we use
wire                                      searches as bytes
session, store, user_store, record_store  blocking calls for the indexer
aio_session, aio_store, aio_user_store    asyncio calls for the server
"""
