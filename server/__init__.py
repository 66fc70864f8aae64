"""The gRPC service `recall.v1.RecallService`: validate, encode, search, merge.

    __main__, processes, app   options, processes, and the server put together; `files` and `instrumentation` help
    edge/                      what a call meets first: TLS, tokens, limits, decoding, the servicers
    users/                     remembered users: their histories and their interest vectors
    serving/                   the path of a question to its answer: pipeline, batching, merge, filter
    release                    the released model and collection
    watching/                  metrics, traces, samples of recall, the look of log lines
    ports, settings, errors    plain values and protocols

Each imports only from those below it. Depends on `mind` and `protos`. A server with the NumPy encoder never imports
Paddle.
"""
