"""Clients of the recall servers behind the gateway, and the conversion of their answers to JSON."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from clients.aio_client import AsyncRecallClient
from clients.attributes import one_list
from clients.errors import InvalidRequestError
from clients.gateway.problems import ProblemError
from clients.gateway.settings import Settings
from clients.ids import has_text_ids, one_field

Answer = TypeVar("Answer")
ServerName = Literal["main", "compared"]
_UNLIMITED = 2**31 - 1


class Backend:
    """The clients of the server and of the second server to compare with."""

    def __init__(self, settings: Settings) -> None:
        connection = settings.arguments() | {
            # The client must not split a request, so that the limits of the server apply to it.
            "max_users": _UNLIMITED,
            "max_candidates": _UNLIMITED,
            "max_request_bytes": _UNLIMITED,
        }
        compared = connection | {"target": settings.compare_with}
        self.main = AsyncRecallClient(**connection)
        self._compared = AsyncRecallClient(**compared) if settings.compare_with else None
        self._stack = AsyncExitStack()
        self._text_ids: dict[tuple[ServerName, str], bool] = {}
        """Whether the release of a server's channel has text ids."""

    @property
    def compares(self) -> bool:
        """Whether there is a second server to compare with."""
        return self._compared is not None

    def client(self, name: ServerName) -> AsyncRecallClient:
        """Return the client of a server. Raises ProblemError if the second server is wanted and there is none."""
        if name == "main":
            return self.main
        if self._compared is None:
            detail = "the gateway has no second server to compare with; its option --compare-with sets one"
            raise ProblemError(404, "Not found", detail, "NOT_COMPARED")
        return self._compared

    async def has_text_ids(self, name: ServerName, channel: str = "") -> bool:
        """Ask a server whether the release of a channel has text ids. Raises RecallError."""
        found = has_text_ids(await self.client(name).get_server_info(channel=channel))
        self._text_ids[name, channel] = found  # only channels that the server serves come here
        return found

    async def ask(
        self, name: ServerName, call: Callable[[AsyncRecallClient, bool], Awaitable[Answer]], channel: str = ""
    ) -> Answer:
        """Make a call with item ids. It is told whether the release of the channel has text ids.

        That is asked once, and again when a request was refused: then the next release may have come, with other ids.

        Raises:
            RecallError: the call failed.
            RequestValidationError: an id is of the other kind.
        """
        client, known = self.client(name), self._text_ids.get((name, channel))
        is_text = await self.has_text_ids(name, channel) if known is None else known
        try:
            return await call(client, is_text)
        except (InvalidRequestError, RequestValidationError):
            if await self.has_text_ids(name, channel) == is_text:
                raise
        return await call(client, not is_text)

    async def __aenter__(self) -> Self:
        for client in filter(None, (self.main, self._compared)):
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()


def backend_of(request: Request) -> Backend:
    """Return the backend of the application, for `Depends`."""
    backend: Backend = request.state.backend
    return backend


BackendOf = Annotated[Backend, Depends(backend_of)]


def to_json(message: Message) -> dict[str, Any]:
    """Convert a message to protobuf's JSON with protobuf field names, with one field for item ids of either kind.

    Ids become strings, enums become their names.
    """
    plain = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    one_field(plain)
    one_list(plain)
    return plain
