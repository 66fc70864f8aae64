"""The four endpoints of the usual tutorial, which puts FastAPI around PaddleRec and pymilvus.

Requests and answers have the same form as in the tutorial.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from clients.aio_client import AsyncRecallClient
from clients.core import RecallResult
from clients.gateway.backend import BackendOf
from clients.gateway.body import Body, FewUsers, GivenItemIds
from clients.gateway.ids import of_release
from clients.gateway.problems import OF_EVERY_CALL, ProblemError
from clients.gateway.settings import Settings
from clients.gateway.v1 import TopK

logger = logging.getLogger(__name__)
router = APIRouter(tags=["article"], responses=OF_EVERY_CALL)
KILL_AFTER_S = 10
"""Seconds between asking the insert command to stop and killing it."""


class ArticleBody(Body):
    """The request of the tutorial."""

    top_k: TopK = 50
    """Number of candidates per user."""
    hist_item: Annotated[list[GivenItemIds], Field(fail_fast=True), Field(min_length=1), FewUsers]
    """One row for each user: the items that the user clicked, oldest first."""


class Done(BaseModel):
    """The tutorial's answer after a change."""

    status: bool = True
    msg: str


def settings_of(request: Request) -> Settings:
    """Return the settings of the application, for `Depends`."""
    settings: Settings = request.app.state.settings
    return settings


SettingsOf = Annotated[Settings, Depends(settings_of)]


@router.post("/rec/recall", response_model=list[list[int | str]])
async def recall(body: ArticleBody, backend: BackendOf) -> Any:
    """Return one row of item ids for each user, best first: numbers, or text where the release has text ids.

    /v1/recall returns more details.
    """

    async def ask(client: AsyncRecallClient, is_text: bool) -> RecallResult:
        histories = [of_release(row, is_text, "hist_item", user) for user, row in enumerate(body.hist_item)]
        return await client.recall(histories, top_k=body.top_k)

    return JSONResponse((await backend.ask("main", ask)).item_ids)


@router.post("/rec/count")
async def count(backend: BackendOf) -> int:
    """Count the items."""
    return (await backend.main.count_items()).count


@router.post("/rec/insert_data")
async def insert_data(request: Request, settings: SettingsOf) -> Done:
    """Run the operator's command, such as the indexer's build and publish, and wait until it ends."""
    if not settings.insert_command:
        detail = "inserting is not enabled; the gateway's option --insert-command enables it"
        raise ProblemError(403, "Not enabled", detail, "NOT_ENABLED")
    running: asyncio.Lock = request.state.insert_lock
    if running.locked():
        detail = "the insert command is still running; retry when it has ended"
        raise ProblemError(409, "Already running", detail, "ALREADY_RUNNING")
    async with running:
        await _run(settings.insert_command, settings.insert_timeout_s)
    return Done(msg="the command succeeded; servers load a published release by themselves")


@router.post("/qa/drop")
async def drop(backend: BackendOf, settings: SettingsOf) -> Done:
    """Drop the released collection from Milvus. Recall then fails until another release is published."""
    if not settings.allow_drop:
        detail = "dropping is not enabled; the gateway's options --allow-drop and --server-token-file enable it"
        raise ProblemError(403, "Not enabled", detail, "NOT_ENABLED")
    collection = (await backend.main.get_server_info()).collection
    dropped = await backend.main.drop_items(collection, allow_live=True)
    logger.warning("dropped %s, %d items", dropped.collection, dropped.dropped_count)
    return Done(msg=f"dropped {dropped.collection}, {dropped.dropped_count} items")


async def _run(command: tuple[str, ...], timeout_s: float) -> None:
    """Run a command of the operator. Its output goes to the output of the gateway. Raises ProblemError."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        logger.error("--insert-command %s: %s", command[0], error)
        detail = "the insert command could not be started; the log of the gateway has the reason"
        raise ProblemError(502, "Failed", detail, "INSERT_FAILED") from error
    try:
        code = await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError as error:
        detail = f"the insert command was stopped after {timeout_s:g} s; --insert-timeout-s sets this limit"
        raise ProblemError(504, "Not done in time", detail, "INSERT_TIMEOUT") from error
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
        detail = f"the insert command ended with exit code {code}; the log of the gateway has its output"
        raise ProblemError(502, "Failed", detail, "INSERT_FAILED")
