"""The gateway as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from clients.gateway import article, operations, pages, problems, similar, users, v1
from clients.gateway.backend import Backend
from clients.gateway.catalogue import Catalogue
from clients.gateway.middleware import BoundedBody, SecurityHeaders
from clients.gateway.settings import Settings
from clients.gateway.sites import OwnSite

_DESCRIPTION = """An HTTP and JSON interface to the recall service, whose own protocol is gRPC.
`/v1` has the same calls and fields as the gRPC service, but one field for item ids of either kind; `id_type` of
`/v1/info` tells the kind. Text ids are strings. Integers may be numbers or strings of digits in requests, and are
strings in answers, because JavaScript rounds integers beyond 2^53. `/rec` and `/qa` are the endpoints of the usual
tutorial, with integers as numbers. Errors are RFC 9457 problems with a stable `reason`."""


def create_app(settings: Settings) -> FastAPI:
    """Create the application. It connects to the recall server when it starts.

    Raises:
        FileError: a file that the settings name has wrong content.
        OSError: a file that the settings name cannot be read.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with Backend(settings) as backend:
            yield {"backend": backend, "insert_lock": asyncio.Lock()}

    app = FastAPI(
        title="mind-recall",
        version=version("mind-recall"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.catalogue = Catalogue(settings)
    app.state.operations = operations.Operations(settings.metrics)
    app.add_middleware(BoundedBody, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    app.add_middleware(OwnSite, names=settings.names)
    app.add_middleware(SecurityHeaders)
    problems.install(app)
    for router in (
        v1.router,
        similar.router,
        users.router,
        v1.health,
        article.router,
        pages.router,
        operations.router,
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    problems.describe(app.openapi())
    return app
