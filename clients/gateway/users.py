"""The endpoints of /v1/users: the calls about users whom the service remembers. They need a server with --users.

They are off by default, because everyone who reaches the gateway could read and delete what users clicked.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, Field

from clients.aio_client import AsyncRecallClient
from clients.gateway.backend import BackendOf, to_json
from clients.gateway.body import Body, FewUsers, GivenItemIds
from clients.gateway.ids import of_release, text
from clients.gateway.problems import OF_EVERY_CALL, ProblemError
from clients.gateway.v1 import Channel, TopK, User
from clients.ids import fill
from protos.recall.v1 import recall_pb2

UserId = Annotated[str, AfterValidator(text)]


def _enabled(request: Request) -> None:
    """Refuse calls unless the operator allows them. Raises ProblemError."""
    if not request.app.state.settings.allow_users:
        detail = "calls about remembered users are not enabled; the gateway's option --allow-users enables them"
        raise ProblemError(403, "Not enabled", detail, "NOT_ENABLED")


router = APIRouter(prefix="/v1/users", tags=["users"], responses=OF_EVERY_CALL, dependencies=[Depends(_enabled)])


class Update(Body):
    """What a user did: hist_item replaces what is stored, append_item_ids follows it. One of them is given."""

    user_id: UserId
    """The caller's own id of the user, 1 to 128 bytes of UTF-8."""
    hist_item: GivenItemIds = Field(default=[])
    """The whole history, oldest first."""
    append_item_ids: GivenItemIds = Field(default=[])
    """New clicks, oldest first."""
    events: list[UserId] = Field(default=[])
    """The kind of each click, such as view, for a model that was trained with kinds. Empty: all are history."""


class UpsertBody(Body):
    """Updates of users."""

    users: Annotated[list[Update], Field(fail_fast=True), Field(min_length=1), FewUsers]
    """The updates, applied in this order."""
    channel: Channel = ""
    """The channel whose type of item ids these are. Users are the same in all channels."""


class SimilarUsersBody(Body):
    """Users to whom similar users are wanted."""

    users: Annotated[list[User], Field(fail_fast=True), Field(min_length=1), FewUsers]
    """Remembered users by user_id, or histories."""
    top_k: TopK = 10
    """Number of similar users for each."""
    channel: Channel = ""
    """The channel whose model compares users. Empty is the server's default channel."""


class DeleteBody(Body):
    """Users to delete."""

    user_ids: Annotated[list[UserId], Field(min_length=1), FewUsers]
    """The ids of the users."""


class _Model(BaseModel):
    model_version: str


class Written(BaseModel):
    """What became of an update."""

    status: str
    history_length: int
    detail: str
    dropped: int


class UpsertAnswer(_Model):
    """What became of each update, in the order of the request."""

    results: list[Written]


class SimilarUsers(BaseModel):
    """The users most similar to a user, best first, and their cosines."""

    user_ids: list[str]
    scores: list[float]
    status: str
    detail: str


class SimilarUsersAnswer(_Model):
    """Similar users, in the order of the request."""

    results: list[SimilarUsers]
    collection: str
    channel: str


class Deleted(BaseModel):
    """What became of a user."""

    status: str
    detail: str


class DeleteAnswer(_Model):
    """What became of each user, in the order of the request."""

    results: list[Deleted]


@router.post("/upsert", response_model=UpsertAnswer)
async def upsert(body: UpsertBody, backend: BackendOf) -> Any:
    """Remember what users clicked. The answer comes when every server sees it."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> recall_pb2.UpsertUsersResponse:
        request = recall_pb2.UpsertUsersRequest(channel=body.channel)
        for number, update in enumerate(body.users):
            message = request.users.add(user_id=update.user_id, events=update.events)
            for field in ("hist_item", "append_item_ids"):
                fill(message, field, of_release(getattr(update, field), is_text, "users", number, field), field)
        return await client.upsert_users(request)

    return JSONResponse(to_json(await backend.ask("main", ask, body.channel)))


@router.post("/similar", response_model=SimilarUsersAnswer)
async def similar(body: SimilarUsersBody, backend: BackendOf) -> Any:
    """Find the remembered users whose interests are nearest to those of each user."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> recall_pb2.FindSimilarUsersResponse:
        users = [user.to_message(is_text, "users", number) for number, user in enumerate(body.users)]
        return await client.find_similar_users(users, top_k=body.top_k, channel=body.channel)

    return JSONResponse(to_json(await backend.ask("main", ask, body.channel)))


@router.post("/delete", response_model=DeleteAnswer)
async def delete(body: DeleteBody, backend: BackendOf) -> Any:
    """Delete remembered users from every release."""
    return JSONResponse(to_json(await backend.main.delete_users(body.user_ids)))
