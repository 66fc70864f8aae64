"""The four endpoints of the usual tutorial (FastAPI around PaddleRec and pymilvus), with its requests and answers."""

import asyncio
import logging
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from clients.gateway.backend import BackendOf
from clients.gateway.ids import ItemId
from clients.gateway.middleware import refuse_other_sites
from clients.gateway.problems import OF_EVERY_CALL, ProblemError, responses
from clients.gateway.settings import Settings
from clients.gateway.v1 import TopK

logger = logging.getLogger(__name__)
router = APIRouter(tags=["article"], responses=OF_EVERY_CALL)
KILL_AFTER_S = 10
"""What an insert command that was told to stop gets to do so."""
_GUARDS = [Depends(refuse_other_sites)]


class ArticleBody(BaseModel):
    """What the article's curl sends."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    top_k: TopK = 50
    """Candidates wanted per user."""
    hist_item: list[list[ItemId]] = Field(min_length=1)
    """A row for each user: items that the user clicked, oldest first."""


class Done(BaseModel):
    """What the article's stack says after a change."""

    status: bool = True
    msg: str


def settings_of(request: Request) -> Settings:
    """The application's settings, for `Depends`."""
    settings: Settings = request.app.state.settings
    return settings


SettingsOf = Annotated[Settings, Depends(settings_of)]


@router.post("/rec/recall", response_model=list[list[int]])
async def recall(body: ArticleBody, backend: BackendOf) -> Any:
    """A row of item ids for each user, as numbers, best first; /v1/recall says more about them."""
    answer = await backend.main.recall(body.hist_item, top_k=body.top_k)
    return JSONResponse([list(candidates.item_ids) for candidates in answer.results])


@router.post("/rec/count")
async def count(backend: BackendOf) -> int:
    """The number of items."""
    return (await backend.main.count_items()).count


@router.post("/rec/insert_data", dependencies=_GUARDS, responses=responses(403))
async def insert_data(request: Request, settings: SettingsOf) -> Done:
    """Runs the command that the operator gave for it, such as the indexer's build and publish, to its end."""
    if not settings.insert_command:
        raise ProblemError(403, "Not enabled", "the gateway's option --insert-command enables it", "NOT_ENABLED")
    running: asyncio.Lock = request.state.insert_lock
    if running.locked():
        raise ProblemError(409, "Already running", "the command runs; ask again when it has ended", "ALREADY_RUNNING")
    async with running:
        await _run(settings.insert_command, settings.insert_timeout_s)
    return Done(msg="the command ended well; servers take a published release over by themselves")


@router.post("/qa/drop", dependencies=_GUARDS, responses=responses(403))
async def drop(backend: BackendOf, settings: SettingsOf) -> Done:
    """Drops the released collection from Milvus; recall then fails until another release is published."""
    if not settings.allow_drop:
        detail = "the gateway's options --allow-drop and --server-token-file enable it"
        raise ProblemError(403, "Not enabled", detail, "NOT_ENABLED")
    collection = (await backend.main.get_server_info()).collection
    dropped = await backend.main.drop_items(collection, allow_live=True)
    logger.warning("dropped %s, %d items", dropped.collection, dropped.dropped_count)
    return Done(msg=f"dropped {dropped.collection}, {dropped.dropped_count} items")


async def _run(command: tuple[str, ...], timeout_s: float) -> None:
    """Runs a command of the operator's; its output goes where the gateway's goes. Raises ProblemError."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        logger.error("--insert-command %s: %s", command[0], error)
        raise ProblemError(502, "Failed", "the command could not be started; see the log", "INSERT_FAILED") from error
    try:
        code = await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError as error:
        raise ProblemError(504, "Not done in time", f"stopped after {timeout_s:g} s", "INSERT_TIMEOUT") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), KILL_AFTER_S)
            except TimeoutError:
                process.kill()
                await process.wait()
    if code:
        raise ProblemError(502, "Failed", f"the command ended with code {code}; see the log", "INSERT_FAILED")
