"""The command `size`, which asks no server."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from clients.commands.answer import Format, FormatOption
from clients.commands.question import TopK
from clients.size import Load, SizeError, amount
from clients.size import size as size_of
from clients.tables import size_view

app = typer.Typer()


@app.command(epilog="Example: recall-client size --items 100M --qps 20k --top-k 50 --users-per-request 64")
def size(
    items: Annotated[str, typer.Option(metavar="AMOUNT", help="Items in the catalogue, such as 100M.")],
    qps: Annotated[str, typer.Option(metavar="AMOUNT", help="Users per second at the peak, such as 20k.")],
    top_k: TopK = Load.top_k,
    users_per_request: Annotated[int, typer.Option(help="Users per request.")] = Load.users_per_request,
    dim: Annotated[int, typer.Option(help="Length of an item's vector, hidden_size of the model.")] = Load.dim,
    replicas: Annotated[int, typer.Option(help="Replicas of a collection in the memory of Milvus.")] = Load.replicas,
    collections: Annotated[
        int, typer.Option(help="Collections in the memory of Milvus: live, previous and in progress.")
    ] = Load.collections,
    headroom: Annotated[float, typer.Option(help="Share of the processors idle at the peak.")] = Load.headroom,
    node_cores: Annotated[
        int, typer.Option(help="Cores per query node of Milvus.", rich_help_panel="Milvus")
    ] = Load.node_cores,
    node_gb: Annotated[
        float, typer.Option(help="Memory per query node of Milvus, in GB.", rich_help_panel="Milvus")
    ] = Load.node_gb,
    segment_mb: Annotated[
        float, typer.Option(help="dataCoord.segment.maxSize of Milvus, in MB.", rich_help_panel="Milvus")
    ] = Load.segment_mb,
    milvus_cpu_s: Annotated[
        float | None,
        typer.Option(
            help="Your own measurement of processor seconds per 1,000 users, instead of the estimate.",
            rich_help_panel="Milvus",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Estimate the hardware for a load from our measurements, and print the assumptions. This asks no server."""
    try:
        load = Load(
            amount(items), amount(qps), top_k, users_per_request, dim, replicas, collections, headroom,
            node_cores, node_gb, segment_mb, milvus_cpu_s,
        )  # fmt: skip
        needed = size_of(load)
    except SizeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if format is Format.JSON:
        typer.echo(json.dumps({"load": vars(load)} | asdict(needed), indent=2))
    else:
        Console(highlight=False).print(size_view(needed))
