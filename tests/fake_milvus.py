"""A Milvus on a port of its own that gives the answers it is told, such as those of a version that cannot run here.

What it is not told about succeeds and says nothing: the fields of such an answer have their defaults.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

Answer = Any
"""A message, a function of the request that returns one, or a `grpc.StatusCode` to fail with."""

DENIED = "{}: permission deny to reader in the `default` database"
"""What Milvus says, with the code PERMISSION_DENIED, to users without a right; {} is the name of the right."""
_METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, answers: Mapping[str, Answer], others: Answer) -> None:
        self.answers = answers
        self.others = others
        self.called: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = handler_call_details.method.rpartition("/")[2]
        kinds = GetMessageClass(_METHODS[name].input_type), GetMessageClass(_METHODS[name].output_type)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.called.append(name)
            given = self.answers.get(name, self.others)
            if isinstance(given, grpc.StatusCode):
                context.abort(given, DENIED.format(f"Privilege{name}"))
            if isinstance(given, Callable):  # type: ignore[arg-type]
                given = given(request)
            return kinds[1]() if given is None else given

        return grpc.unary_unary_rpc_method_handler(answer, kinds[0].FromString, kinds[1].SerializeToString)


@contextmanager
def fake_milvus(answers: Mapping[str, Answer], others: Answer = None) -> Iterator[tuple[str, list[str]]]:
    """Run it.

    Args:
        answers: the answer to each method of milvus.proto, by name.
        others: the answer to all other methods; None is success.

    Yields:
        Its address, and the names of the methods that were called so far.
    """
    handler = _Handler(answers, others)
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", handler.called
    finally:
        server.stop(0).wait()


def index_answer(
    state: str = "Finished", indexed: int = 0, total: int = 0, pending: int = 0
) -> milvus_pb2.DescribeIndexResponse:
    """The answer of describe_index for a vector; with the defaults it is the whole answer of Milvus Lite 2.5.1."""
    description = milvus_pb2.IndexDescription(
        index_name="embedding",
        field_name="embedding",
        state=common_pb2.IndexState.Value(state),
        indexed_rows=indexed,
        total_rows=total,
        pending_index_rows=pending,
    )
    return milvus_pb2.DescribeIndexResponse(index_descriptions=[description])


def flushed(name: str) -> milvus_pb2.FlushResponse:
    """The answer to a flush of a collection, whose one segment is written later."""
    return milvus_pb2.FlushResponse(
        coll_segIDs={name: schema_pb2.LongArray(data=[1])}, coll_flush_ts={name: 450_000_000_000_000_000}
    )
