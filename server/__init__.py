"""The gRPC service `recall.v1.RecallService`: validate, encode, search, merge.

    __main__, processes, app   options, processes, and the server put together; `files` and `instrumentation` help
        edge/                      all around a call: TLS, tokens, limits, decoding, the servicers
    users/                     remembered users: their histories and their interest vectors
        serving/                   the path from a request's users to their answers: pipeline, batching, merge, filter
    release                    the released model and collection
        watching/                  metrics, traces, samples of recall, the format of log lines
    ports, settings, errors    plain values and protocols

Each folder imports only from those below it in this list. The package depends on `mind` and `protos`. A server with the
NumPy encoder never imports Paddle.
"""
