"""The endpoints of /v1: the calls of recall.v1.RecallService as HTTP and JSON, with the same fields."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema

from clients.aio_client import AsyncRecallClient
from clients.core import RecallResult
from clients.gateway.backend import BackendOf, ServerName, to_json
from clients.gateway.body import Body, FewUsers, GivenItemIds
from clients.gateway.catalogue import CatalogueOf
from clients.gateway.ids import INT64_STRING, ItemId, of_release, text, whole
from clients.gateway.problems import OF_EVERY_CALL, ProblemError, responses
from clients.ids import fill
from protos.recall.v1 import recall_pb2

MAX_ATTRIBUTES = 64
"""Maximum number of attributes that a request can ask for. The limit of the server may be lower."""
MAX_PINS = 1_000
"""Maximum number of pins of a request. The limit of the server may be lower."""
MAX_TOKEN = 190_000
"""Maximum number of characters of a page token. The limit of the server may be lower."""
BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
TopK = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(whole)]
"""The type of `top_k`. No server allows more than 10,000."""

Number = Annotated[float, Field(ge=-1e9, le=1e9, strict=True, allow_inf_nan=False)]
"""The type of what boosts add. The server allows less."""
ReturnAttributes = Annotated[list[Annotated[str, AfterValidator(text)]], Field(default=[], max_length=MAX_ATTRIBUTES)]
"""The type of `return_attributes`."""
Int64 = Annotated[str, WithJsonSchema(INT64_STRING)]
Server = Annotated[
    ServerName, Query(description="The server to ask: main, or compared for the second server of --compare-with.")
]

Channel = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,31})?$")]
"""The type of `channel`."""
MAX_SPLIT_KEY = 128
"""Maximum number of characters of a split key. The server has the same limit in bytes."""
OfChannel = Annotated[
    Channel, Query(description="The channel to tell of, of those that /v1/info lists. Empty is the default channel.")
]

router = APIRouter(prefix="/v1", tags=["recall"], responses=OF_EVERY_CALL | responses(404))


class User(Body):
    """One user of a batch."""

    hist_item: GivenItemIds = Field(default=[])
    """The items that the user clicked, oldest first."""
    exclude_item_ids: GivenItemIds = Field(default=[])
    """Items that must not be among the candidates."""
    user_id: Annotated[str, AfterValidator(text)] = ""
    """The id of a user whom the server remembers, instead of hist_item."""

    def to_message(self, is_text: bool, *place: str | int) -> recall_pb2.User:
        """Convert the user to the message of the gRPC service.

        Args:
            is_text: whether the release has text ids.
            place: where the user stands in the body.

        Raises:
            RequestValidationError: an item id is of the other kind.
        """
        message = recall_pb2.User(user_id=self.user_id)
        for field in ("hist_item", "exclude_item_ids"):
            fill(message, field, of_release(getattr(self, field), is_text, *place, field), field)
        return message


class AtMost(Body):
    """How many candidates of a user may share a value of an attribute."""

    attribute: Annotated[str, AfterValidator(text)]
    """An attribute that /v1/info lists."""
    count: Annotated[int, Field(ge=1, le=10_000), BeforeValidator(whole)]
    """Candidates of a user that may have the same value."""


class Boost(Body):
    """What is added to the scores of some items: of those that match a filter, or of newer ones more than of older."""

    filter: Annotated[str, AfterValidator(text)] = ""
    """Milvus expression that the items match."""
    add: Number = 0
    """Added to the scores of these items."""
    attribute: Annotated[str, AfterValidator(text)] = ""
    """An attribute with a time in seconds since 1970, instead of a filter."""
    half_life_days: Number = 0
    """Days after which half of weight is left."""
    weight: Number = 0
    """Added to the score of a new item."""


class Explore(Body):
    """Places for items that are drawn."""

    share: Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)]
    """Share of top_k."""
    filter: Annotated[str, AfterValidator(text)] = ""
    """Milvus expression that the items match."""
    seed: Annotated[int, Field(ge=0, le=2**53 - 1), BeforeValidator(whole)] = 0
    """The same seed draws the same items. 0 is a random seed."""


class _Question(Body):
    top_k: TopK = 50
    """Number of candidates per user. The limit of the server may be lower than 10,000."""
    filter: Annotated[str, AfterValidator(text)] = ""
    """Milvus expression over the attributes that /v1/info lists."""
    exclude_history: StrictBool = False
    """Leave out the items in the user's own history."""
    exclude_shown: StrictBool = False
    """Leave out what the server remembers that the user was shown. Users need a user_id for that."""
    merge_strategy: Literal["best_score", "round_robin"] = "best_score"
    """best_score puts the best score first. round_robin lets the interests take turns."""
    neighbours: Literal["default", "on", "off"] = "default"
    """on: items that users clicked soon after the newest clicks are candidates too. default: as the release does."""
    return_attributes: ReturnAttributes
    """Attributes to return with the candidates, of those that /v1/info lists."""
    at_most: Annotated[list[AtMost], Field(default=[], max_length=MAX_ATTRIBUTES)]
    """How many candidates of a user may share a value of an attribute. Of several rules for one, the lowest holds."""
    per_interest_min: Annotated[int, Field(ge=0, le=10_000), BeforeValidator(whole)] = 0
    """Candidates that each interest of a user has at least."""
    diversity: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0
    """How much candidates shall differ from one another (MMR)."""

    boosts: Annotated[list[Boost], Field(default=[], max_length=MAX_ATTRIBUTES)]
    """What is added to the scores of some items, for their places."""
    pin_item_ids: Annotated[GivenItemIds, Field(max_length=MAX_PINS)] = Field(default=[])
    """Items that come first for every user, in this order."""
    explore: Explore | None = None
    """Places for items that are drawn."""
    now_unix_s: Annotated[int, Field(ge=0, le=2**40), BeforeValidator(whole)] = 0
    """The time for boosts by age, in seconds since 1970. 0 is the clock of the server."""
    release_rules: StrictBool = True
    """Whether the rules of the release apply too, which /v1/info tells."""

    channel: Channel = ""
    """The channel whose release answers. Empty: the server's split by split_key, or else its default channel."""
    split_key: Annotated[str, Field(max_length=MAX_SPLIT_KEY), AfterValidator(text)] = ""
    """What a server with a split assigns to a channel, such as the id of a user or session."""

    def options(self, is_text: bool) -> dict[str, Any]:
        """Return the arguments for the client.

        Args:
            is_text: whether the release has text ids.

        Raises:
            RequestValidationError: a pin is of the other kind.
        """
        given = {name: getattr(self, name) for name in _Question.model_fields if name != "pin_item_ids"}
        falling = sorted(self.at_most, key=lambda rule: -rule.count)
        return given | {
            "at_most": {rule.attribute: rule.count for rule in falling},
            "boosts": [boost.model_dump() for boost in self.boosts],
            "pin": of_release(self.pin_item_ids, is_text, "pin_item_ids"),
            "explore": self.explore and self.explore.model_dump(),
        }


class RecallBody(_Question):
    """A batch of users."""

    users: Annotated[list[User], Field(fail_fast=True), Field(min_length=1), FewUsers]
    """The users of the batch. The answer has the same order."""
    paged: StrictBool = False
    """Answer with next_page_token, which continues the lists of all users."""
    page_token: Annotated[str, Field(max_length=MAX_TOKEN, pattern=BASE64)] = ""
    """The next_page_token of the page before. Users and options are those of the first page."""


class ExplainBody(_Question):
    """One user whose recall is explained."""

    user: User
    """The user to explain."""


class ItemsBody(Body):
    """Items whose attributes are asked for."""

    item_ids: Annotated[GivenItemIds, Field(min_length=1)]
    """The ids of the items. `max_users` of /v1/info limits their number."""
    return_attributes: ReturnAttributes
    """Attributes to return, of those that /v1/info lists."""
    channel: Channel = ""
    """The channel whose release has the items. Empty is the server's default channel."""


class FeedbackBody(Body):
    """What a user did with some items."""

    kind: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(text)]
    """What the user did, such as click or buy."""
    item_ids: Annotated[GivenItemIds, Field(min_length=1)]
    """The ids of the items. The limit of the server is 1,000."""
    user_id: Annotated[str, AfterValidator(text)] = ""
    """The caller's own id of the user. Without it, recall_id stands for the user."""
    recall_id: Annotated[str, AfterValidator(text)] = ""
    """The recall_id of the list that showed the items."""
    time_ms: Annotated[int, Field(ge=0, le=2**53 - 1), BeforeValidator(whole)] = 0
    """When, in milliseconds since 1970. 0 is now."""
    channel: Channel = ""
    """The channel that showed the items. Empty is the server's default channel."""


class Logged(BaseModel):
    """The feedback is in the log soon."""


class Candidates(BaseModel):
    """The candidates of one user in parallel arrays, best first."""

    item_ids: list[ItemId]
    scores: list[float]
    interest: list[int]
    status: str
    fallback: bool
    unknown_item_ids: list[ItemId]
    unknown_count: int
    detail: str
    source: list[str]
    added: list[float]
    """What boosts added to each score for the place of the candidate. Empty without boosts."""
    recall_id: str
    """The id of this list, for /v1/feedback. Empty unless the server logs feedback."""
    attributes: dict[str, list[Any]]
    """For each attribute of return_attributes, a value per candidate; null where an item has none."""


class Timings(BaseModel):
    """The time of each stage in the server, in milliseconds."""

    history_ms: float
    queue_ms: float
    encode_ms: float
    search_ms: float
    merge_ms: float
    total_ms: float


class Origin(BaseModel):
    """The model and the collection that answered."""

    model_version: str
    collection: str
    channel: str


class RecallAnswer(Origin):
    """The candidates of all users, in the order of the request."""

    results: list[Candidates]
    timings: Timings
    attributes_detail: str
    """Why attributes are left out. Empty if all are there."""
    next_page_token: str
    """For page_token of the same request. Empty if no pages were asked for, or if they end."""


class Interest(BaseModel):
    """One interest of the user, the items that the search found for it, neighbours, and the weight of each click."""

    vector: list[float]
    item_ids: list[ItemId]
    scores: list[float]
    neighbour_item_ids: list[ItemId]
    neighbour_scores: list[float]
    neighbour_bonuses: list[float]
    neighbour_fresh: list[bool]
    """Whether each neighbour was added after the build."""
    added: list[float]
    neighbour_added: list[float]
    weights: list[float]


class DroppedHit(BaseModel):
    """A hit that is not among the candidates, and the reason."""

    item_id: ItemId
    interest: int
    score: float
    reason: str
    source: str
    at_most: list[str]
    """The attributes of at_most that dropped it; empty for other reasons."""
    added: float


class AppliedBoost(BaseModel):
    """What one boost adds to each candidate."""

    boost: dict[str, Any]
    of_release: bool
    added: list[float]


class ExplainAnswer(Origin):
    """Every step of one user's recall."""

    used_hist_item: list[ItemId]
    interests: list[Interest]
    candidates: Candidates
    dropped: list[DroppedHit]
    boosts: list[AppliedBoost]
    timings: Timings
    titles: dict[str, str]


class ItemsAnswer(Origin):
    """The attributes of items, in the order of the request."""

    item_ids: list[ItemId]
    attributes: dict[str, list[Any]]
    """For each attribute of return_attributes, a value per item; null where an item has none."""
    attributes_detail: str
    """Why attributes are left out. Empty if all are there."""


class Count(Origin):
    """The number of items that can be recalled."""

    count: Int64


class Info(Origin):
    """The served release and the limits of the server. There are more fields, as in GetServerInfoResponse."""

    model_config = ConfigDict(extra="allow")

    server_version: str
    item_count: Int64
    embedding_dim: int
    num_interests: int
    maxlen: int
    id_type: str


@router.post("/recall", response_model=RecallAnswer)
async def recall(body: RecallBody, backend: BackendOf, server: Server = "main") -> Any:
    """Return candidates for a batch of users."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> RecallResult:
        users = [user.to_message(is_text, "users", number) for number, user in enumerate(body.users)]
        token = base64.b64decode(body.page_token)
        return await client.recall(users, **body.options(is_text), paged=body.paged, page_token=token)

    answer = await backend.ask(server, ask, body.channel)
    response = recall_pb2.RecallResponse(
        results=answer.results,
        model_version=answer.model_versions[0],
        collection=answer.collections[0],
        channel=answer.channels[0],
        timings=answer.timings[0],
        attributes_detail=answer.attributes_detail,
        next_page_token=answer.next_page_token,
    )
    return JSONResponse(to_json(response))


@router.post("/explain", response_model=ExplainAnswer)
async def explain(body: ExplainBody, backend: BackendOf, catalogue: CatalogueOf, server: Server = "main") -> Any:
    """Explain the recall of one user: the interests, the hits of each, and which hits were dropped and why."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> recall_pb2.ExplainResponse:
        return await client.explain(body.user.to_message(is_text, "user"), **body.options(is_text))

    answer = to_json(await backend.ask(server, ask, body.channel))
    given = map(str, [*body.user.hist_item, *body.user.exclude_item_ids])
    found = [item_id for interest in answer["interests"] for item_id in interest["item_ids"]]
    return JSONResponse(answer | {"titles": catalogue.titles_of({*given, *found, *answer["candidates"]["item_ids"]})})


@router.post("/items", response_model=ItemsAnswer)
async def items(body: ItemsBody, backend: BackendOf, server: Server = "main") -> Any:
    """Return the attributes of items."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> recall_pb2.GetItemsResponse:
        item_ids = of_release(body.item_ids, is_text, "item_ids")
        return await client.get_items(item_ids, return_attributes=body.return_attributes, channel=body.channel)

    return JSONResponse(to_json(await backend.ask(server, ask, body.channel)))


@router.post("/feedback")
async def feedback(body: FeedbackBody, backend: BackendOf, server: Server = "main") -> Logged:
    """Write what a user did to the log of the server, as data for the next training."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> None:
        ids = of_release(body.item_ids, is_text, "item_ids")
        who: dict[str, Any] = {"user_id": body.user_id, "recall_id": body.recall_id, "channel": body.channel}
        await client.log_feedback(body.kind, ids, time_ms=body.time_ms or None, **who)

    await backend.ask(server, ask, body.channel)
    return Logged()


@router.get("/info", response_model=Info)
async def info(backend: BackendOf, channel: OfChannel = "", server: Server = "main") -> Any:
    """Return the release that a channel serves, all channels, and the limits of the server."""
    return JSONResponse(to_json(await backend.client(server).get_server_info(channel=channel)))


@router.get("/count", response_model=Count)
async def count(
    backend: BackendOf,
    filter: Annotated[str, Query(description="Milvus expression. Empty counts all items.")] = "",  # noqa: A002
    channel: OfChannel = "",
    server: Server = "main",
) -> Any:
    """Count the released items, all of them or those that match a filter."""
    return JSONResponse(to_json(await backend.client(server).count_items(filter, channel=channel)))


health = APIRouter(tags=["health"])


class Health(BaseModel):
    """The state of the gateway or of the recall server."""

    status: Literal["ok"] = "ok"


@health.get("/healthz")
async def healthz() -> Health:
    """Return ok while the gateway runs, even if the recall server does not answer."""
    return Health()


@health.get("/readyz", responses=responses(403, 409, 429, 501, 502, 503, 504))
async def readyz(backend: BackendOf) -> Health:
    """Return ok if the recall server is ready to answer."""
    if not await backend.main.is_serving():
        raise ProblemError(503, "Not ready", "the recall server has no release to serve yet", "NOT_READY")
    return Health()
