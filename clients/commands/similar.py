"""The command `similar`."""

from enum import StrEnum
from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.commands.question import (
    Channel,
    Exclude,
    Filter,
    ReturnAttributes,
    Titles,
    TitlesIdColumn,
    attributes_of_option,
    parse_ids,
)
from clients.ids import has_text_ids
from clients.sync_client import RecallClient
from clients.tables import origin_line, similar_items_view
from clients.titles import read_titles
from protos.recall.v1 import recall_pb2

app = typer.Typer()


class By(StrEnum):
    """Spellings of --by."""

    EMBEDDING = "embedding"
    NEIGHBOURS = "neighbours"
    BOTH = "both"


@app.command(
    epilog="Example: recall-client similar --item-ids 50 --top-k 10 --by both"
    "\n\nExample: recall-client similar --item-ids 50,181 --filter 'year >= 1990' --titles items.csv"
)
@with_client
def similar(
    client: RecallClient,
    item_ids: Annotated[
        str,
        typer.Option(metavar="ID,ID,...", help="An item, or several, to which the others are similar on average."),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="Similar items to find.")] = 10,
    filter: Filter = "",  # noqa: A002
    exclude: Exclude = "",
    by: Annotated[
        By,
        typer.Option(
            help="embedding: the cosine of embeddings. neighbours: what users clicked soon after. both: in turns."
        ),
    ] = By.EMBEDDING,
    attributes: ReturnAttributes = "",
    channel: Channel = "",
    titles: Titles = None,
    titles_id_column: TitlesIdColumn = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Find the items most similar to given ones."""
    info = client.get_server_info(channel=channel)
    text = has_text_ids(info)
    found = client.similar_items(
        [parse_ids(item_ids, "--item-ids", text)],
        top_k=top_k,
        filter=filter,
        exclude_item_ids=[parse_ids(exclude, "--exclude", text)],
        by=by.value,
        return_attributes=attributes_of_option(attributes, info, titles=not (titles or format is Format.JSON)),
        channel=channel,
    )
    response = recall_pb2.SimilarItemsResponse(
        results=found.results,
        model_version=found.model_versions[0],
        collection=found.collections[0],
        channel=found.channels[0],
        timings=found.timings[0],
        attributes_detail=found.attributes_detail,
    )
    view = similar_items_view(found.results[0], read_titles(titles, text, titles_id_column) if titles else {})
    show(format, response, view, origin_line(response))
