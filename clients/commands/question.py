"""Options that ask for candidates, which several commands have, and what is made of them."""

import base64
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from clients.core import MergeStrategyName
from clients.requests import Boost, Explore
from clients.titles import TITLE
from clients.user_files import is_int64
from protos.recall.v1 import recall_pb2

MAX_COUNT = 2**31 - 1
"""Largest count that a request can carry; the limit of the server is lower."""


class Merge(StrEnum):
    """Spellings of --merge."""

    BEST_SCORE = "best-score"
    ROUND_ROBIN = "round-robin"


class Neighbours(StrEnum):
    """Spellings of --neighbours."""

    DEFAULT = "default"
    ON = "on"
    OFF = "off"


def file_option(*names: str, help: str) -> Any:  # noqa: A002
    """An option that names a file to read."""
    return typer.Option(*names, exists=True, dir_okay=False, help=help)


HIST_ITEM = typer.Option(
    "--hist-item",
    metavar="ID,ID,...",
    help="Ids of the items that the user clicked, oldest first. Integers or text, like the ids of the release.",
)
TopK = Annotated[int, typer.Option(min=1, help="Candidates per user.")]
Filter = Annotated[
    str,
    typer.Option(
        metavar="EXPR",
        help="Filter: a Milvus expression over attributes that `info` lists, such as `price < 20`. Items without a "
        "price match only `price is null`.",
    ),
]
ExcludeHistory = Annotated[bool, typer.Option("--exclude-history", help="Leave out the items of the history.")]
ExcludeShown = Annotated[
    bool,
    typer.Option("--exclude-shown", help="Leave out what `users upsert --shown` says that the user was shown."),
]
Paged = Annotated[bool, typer.Option("--paged", help="Print a token that continues the list.")]
PageToken = Annotated[
    str,
    typer.Option(
        metavar="TOKEN", help="Print the next page: the token that the page before printed. Repeat its other options."
    ),
]
ReturnAttributes = Annotated[
    str,
    typer.Option(
        "--attributes",
        metavar="NAME,NAME,..",
        help="Attributes to show with the candidates, of those that `info` lists. Tables show `title` by default if "
        "the release has it.",
    ),
]
Exclude = Annotated[str, typer.Option(metavar="ID,ID,...", help="Ids to leave out.")]
MergeOption = Annotated[Merge, typer.Option("--merge", help="Merge interests by score, or let them take turns.")]
NeighboursOption = Annotated[
    Neighbours,
    typer.Option(
        "--neighbours",
        help="Make items that users clicked soon after the newest clicks candidates too. default: as the release does, "
        "which `info` tells.",
    ),
]
AtMost = Annotated[
    list[str] | None,
    typer.Option(
        "--at-most",
        metavar="NAME=COUNT",
        help="At most so many candidates may share a value of an attribute, for example `category=5`. Repeat it for "
        "several attributes.",
    ),
]
PerInterestMin = Annotated[
    int, typer.Option(min=0, help="Candidates that each interest has at least. 0 is no such rule.")
]
Diversity = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="How much candidates shall differ from one another (MMR). 0 is no such rule, 0.3 a start."
    ),
]
BoostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--boost",
        metavar="EXPR=ADD",
        help="Add so much to the scores of items that match a filter, for their places, for example "
        "`margin > 0.3=0.2`. Repeat it for several boosts.",
    ),
]
BoostNewer = Annotated[
    list[str] | None,
    typer.Option(
        "--boost-newer",
        metavar="NAME=WEIGHT/DAYS",
        help="Add WEIGHT to the scores of new items, half of it to items that are DAYS old, and so on, by an attribute "
        "with the time in seconds since 1970, for example `published_at=0.5/14`.",
    ),
]
Pin = Annotated[str, typer.Option(metavar="ID,ID,...", help="Ids of items that come first, in this order.")]
ExploreOption = Annotated[
    float,
    typer.Option(
        "--explore", min=0, max=1, help="Share of the places that goes to items that are drawn. 0 draws none."
    ),
]
ExploreFilter = Annotated[
    str,
    typer.Option(metavar="EXPR", help='Filter that drawn items match, such as `vector_source != "trained"`.'),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed draws the same items. 0 is a random seed.")]
NoReleaseRules = Annotated[
    bool, typer.Option("--no-release-rules", help="Leave out the rules of the release, which `info` shows.")
]
Channel = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Channel whose release answers, of those that `info` lists. The default is the server's."
    ),
]
SplitKey = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="What a server with --split assigns to a channel, such as the id of a user or session."
    ),
]
Titles = Annotated[
    Path | None,
    file_option("--titles", help="CSV or Parquet file with the columns item_id and title. Tables then show titles."),
]
TitlesIdColumn = Annotated[
    str | None,
    typer.Option(
        "--titles-id-column", help="Column of --titles that holds the item id; otherwise one with a usual name."
    ),
]


def parse_ids(given: str, option: str, text: bool) -> list[int] | list[str]:
    """Item ids out of an option such as 43,23,65; spaces around them are left out. Raises BadParameter.

    Args:
        given: the value of the option.
        option: its name.
        text: whether item ids are text, which the release tells.
    """
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if text:
        return parts
    try:
        ids = [int(part) for part in parts]
    except ValueError:
        ids = [-(2**64)]
    if not all(map(is_int64, ids)):
        message = f"{given!r} is not a list of 64-bit integers such as 43,23,65; this release has integer ids"
        raise typer.BadParameter(message, param_hint=option)
    return ids


def attributes_of_option(given: str, info: recall_pb2.GetServerInfoResponse, titles: bool) -> list[str]:
    """The attributes to ask for.

    Args:
        given: the value of --attributes.
        info: tells the attributes of the release.
        titles: whether to ask for `title` too, if the release has it.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    if titles and TITLE not in names and TITLE in {attribute.name for attribute in info.attributes}:
        return [TITLE, *names]
    return names


def token_of(given: str) -> bytes:
    """The token of --page-token. Raises BadParameter."""
    try:
        return base64.b64decode(given, validate=True)
    except ValueError as error:
        raise typer.BadParameter("must be a token as it was printed, in base64", param_hint="--page-token") from error


def at_most_of_option(given: list[str] | None) -> dict[str, int]:
    """The attributes of --at-most and their counts. Raises BadParameter."""
    found: dict[str, int] = {}
    for rule in given or ():
        name, _, count = (part.strip() for part in rule.rpartition("="))
        if not name or not count.isdecimal() or int(count) > MAX_COUNT:
            message = f"{rule!r} is not an attribute and a count of 1 or more, such as category=5"
            raise typer.BadParameter(message, param_hint="--at-most")
        if name in found:
            raise typer.BadParameter(f"{name!r} is there twice", param_hint="--at-most")
        found[name] = int(count)
    return found


def boosts_of_options(by_filter: list[str] | None, newer: list[str] | None) -> list[Boost]:
    """The boosts of --boost, and then those of --boost-newer. Raises BadParameter."""
    found: list[Boost] = []
    for rule in by_filter or ():
        filter_, _, add = (part.strip() for part in rule.rpartition("="))
        if not filter_ or (number := _number(add)) is None:
            message = f"{rule!r} is not a filter and a number, such as `margin > 0.3=0.2`"
            raise typer.BadParameter(message, param_hint="--boost")
        found.append({"filter": filter_, "add": number})
    for rule in newer or ():
        name, _, numbers = (part.strip() for part in rule.rpartition("="))
        weight, days = (_number(part) for part in numbers.partition("/")[::2])
        if not name or weight is None or days is None:
            message = f"{rule!r} is not an attribute, a weight and days, such as published_at=0.5/14"
            raise typer.BadParameter(message, param_hint="--boost-newer")
        found.append({"attribute": name, "weight": weight, "half_life_days": days})
    return found


def explore_of_options(share: float, filter_: str, seed: int) -> Explore | None:
    """What is asked for by --explore. Raises BadParameter."""
    if not share:
        if filter_ or seed:
            raise typer.BadParameter("--explore-filter and --seed go with --explore", param_hint="--explore")
        return None
    return {"share": share, "filter": filter_, "seed": seed}


def _number(text: str) -> float | None:
    """A finite number; None for another text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def merge_strategy_of(merge: Merge) -> MergeStrategyName:
    """What the clients call it."""
    return cast(MergeStrategyName, merge.value.replace("-", "_"))
