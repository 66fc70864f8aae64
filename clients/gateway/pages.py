"""The explorer page and the docs page, with their files and the endpoints that only they use."""

import copy
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel

from clients.errors import RecallError
from clients.gateway.backend import BackendOf
from clients.gateway.body import GivenItemIds
from clients.gateway.catalogue import CatalogueOf
from clients.gateway.ids import describe_text_ids
from clients.gateway.operations import OperationsOf
from clients.gateway.problems import ProblemError
from clients.ids import ItemIds

HERE = Path(__file__).parent
STATIC = HERE / "static"
_SWAGGER = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# Swagger UI styles its elements inline.
_DOCS_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_EXAMPLE_ITEMS = 5
MAX_EXAMPLE_ATTRIBUTES = 3
"""Attributes in the example of /v1/items."""
MAX_SEARCH = 200
"""Maximum length in characters of a text that titles are searched for."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def explorer() -> Response:
    """Return the explorer page."""
    return FileResponse(STATIC / "explorer.html")


@router.get("/items")
async def items_page() -> Response:
    """Return the page of one item, which the part of the address after the # names."""
    return FileResponse(STATIC / "items.html")


@router.get("/docs")
async def docs() -> Response:
    """Return the page of Swagger UI. Its files are part of this package."""
    return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": _DOCS_CONTENT})


@router.get("/swagger/{name}")
async def swagger(name: str) -> Response:
    """Return a file of Swagger UI. The files are stored compressed."""
    if name not in _SWAGGER:
        raise ProblemError(404, "Not found", f"there is no file {name}", "NOT_FOUND")
    headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=86400"}
    return FileResponse(HERE / "swagger" / f"{name}.gz", headers=headers, media_type=_SWAGGER[name])


@router.get("/openapi.json")
async def openapi(request: Request, backend: BackendOf) -> Response:
    """Return the OpenAPI description, with the kind of item ids and examples of the model that is served now."""
    schema = copy.deepcopy(request.app.openapi())
    names: list[str] = []
    try:
        names = [attribute.name for attribute in (await backend.main.get_server_info()).attributes]
        item_ids: ItemIds = (await backend.main.recall([[]], top_k=_EXAMPLE_ITEMS)).item_ids[0]
        if await backend.has_text_ids("main"):
            describe_text_ids(schema)
    except RecallError:
        item_ids = [1, 2, 3]  # the page must open even when the server is away
    user = {"hist_item": list(map(str, item_ids))}
    examples: dict[str, Any] = {
        "/v1/recall": {"users": [user], "top_k": 10, "exclude_history": True},
        "/v1/explain": {"user": user, "top_k": 10, "exclude_history": True},
        "/v1/similar": {"queries": [{"item_ids": user["hist_item"][:1]}], "top_k": 10},
        "/v1/items": {"item_ids": user["hist_item"], "return_attributes": names[:MAX_EXAMPLE_ATTRIBUTES]},
        "/v1/users/upsert": {"users": [{"user_id": "example", **user}]},
        "/v1/users/similar": {"users": [user], "top_k": 10},
        "/v1/users/delete": {"user_ids": ["example"]},
        "/v1/feedback": {"kind": "click", "item_ids": user["hist_item"], "user_id": "ann"},
        "/rec/recall": {"top_k": 10, "hist_item": [item_ids]},
    }
    for path, example in examples.items():
        schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"] = example
    return JSONResponse(schema)


@router.get("/explorer/setup")
async def setup(backend: BackendOf, catalogue: CatalogueOf, operations: OperationsOf) -> Response:
    """Return what the explorer page can offer: a second server, titles, maps, example users, the operations view."""
    return JSONResponse(
        {
            "compares": backend.compares,
            "has_titles": catalogue.has_titles,
            "maps": list(catalogue.maps),
            "users": catalogue.users,
            "operations": bool(operations.urls),
        }
    )


@router.get("/explorer/items")
async def items(
    catalogue: CatalogueOf,
    search: Annotated[str, Query(max_length=MAX_SEARCH)],
    limit: Annotated[int, Query(ge=1, le=50)] = 10,
) -> list[dict[str, str]]:
    """Find the item with an id, and items whose title contains a text."""
    return [{"item_id": item_id, "title": title} for item_id, title in catalogue.search(search, limit)]


class TitlesBody(BaseModel):
    """Items whose titles the page asks for. They may be somebody's history, which no address may contain."""

    item_ids: GivenItemIds


@router.post("/explorer/titles")
async def titles(catalogue: CatalogueOf, body: TitlesBody) -> dict[str, str]:
    """Return the titles of items, by id. Items without a title are left out."""
    return catalogue.titles_of(map(str, body.item_ids))


@router.get("/explorer/maps/{model_version}")
async def item_map(catalogue: CatalogueOf, model_version: str) -> Response:
    """Return the map of the items of a model."""
    if model_version not in catalogue.maps:
        raise ProblemError(404, "Not found", f"there is no map of model {model_version}", "NOT_FOUND")
    return Response(catalogue.maps[model_version], media_type="application/json")
