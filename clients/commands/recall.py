"""The commands `recall` and `explain`."""

import functools
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import Progress

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.commands.question import (
    HIST_ITEM,
    AtMost,
    BoostNewer,
    BoostOption,
    Channel,
    Diversity,
    Exclude,
    ExcludeHistory,
    ExcludeShown,
    ExploreFilter,
    ExploreOption,
    Filter,
    Merge,
    MergeOption,
    Neighbours,
    NeighboursOption,
    NoReleaseRules,
    Paged,
    PageToken,
    PerInterestMin,
    Pin,
    ReturnAttributes,
    Seed,
    SplitKey,
    Titles,
    TitlesIdColumn,
    TopK,
    at_most_of_option,
    attributes_of_option,
    boosts_of_options,
    explore_of_options,
    file_option,
    merge_strategy_of,
    parse_ids,
    token_of,
)
from clients.core import RecallResult
from clients.ids import ItemIds, has_text_ids
from clients.plain import to_plain
from clients.requests import MAX_HISTORY, user_of
from clients.sync_client import RecallClient
from clients.tables import candidates_view, explain_view, origin_line, status_words
from clients.titles import read_titles
from clients.user_files import FileError, check_own_ids, read_users
from protos.recall.v1 import recall_pb2

app = typer.Typer()

_USERS_PER_CALL = 256


@app.command(
    epilog="Example: recall-client recall --hist-item 43,23,65 --top-k 50 --filter 'year >= 1990' --titles items.csv"
    "\n\nExample: recall-client recall --input test.txt --output candidates.jsonl"
)
@with_client
def recall(
    client: RecallClient,
    hist_item: Annotated[str | None, HIST_ITEM] = None,
    user_id: Annotated[str | None, typer.Option(help="Id of a remembered user, instead of --hist-item.")] = None,
    input: Annotated[  # noqa: A002
        Path | None,
        file_option(
            "--input",
            help="File of many users, instead of --hist-item. The answers are JSON lines. The file has PaddleRec lines "
            '(user_id:7 hist_item:43 hist_item:23 ...) or JSON lines ({"user_id": 7, "hist_item": [43, 23]}; text ids '
            "are strings).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for the JSON lines of --input. The default is standard output."),
    ] = None,
    top_k: TopK = 50,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    exclude: Exclude = "",
    merge: MergeOption = Merge.BEST_SCORE,
    neighbours: NeighboursOption = Neighbours.DEFAULT,
    exclude_shown: ExcludeShown = False,
    paged: Paged = False,
    page_token: PageToken = "",
    attributes: ReturnAttributes = "",
    at_most: AtMost = None,
    per_interest_min: PerInterestMin = 0,
    diversity: Diversity = 0,
    boost: BoostOption = None,
    boost_newer: BoostNewer = None,
    pin: Pin = "",
    explore: ExploreOption = 0,
    explore_filter: ExploreFilter = "",
    seed: Seed = 0,
    no_release_rules: NoReleaseRules = False,
    channel: Channel = "",
    split_key: SplitKey = "",
    titles: Titles = None,
    titles_id_column: TitlesIdColumn = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Get candidates for one user, or for a file of users."""
    named = exclude_shown and input is None and None not in (hist_item, user_id)
    if [hist_item, user_id, input].count(None) != 2 and not named:
        raise typer.BadParameter("give one of --hist-item, --user-id and --input (the first two with --exclude-shown)")
    if input is not None and (paged or page_token):
        raise typer.BadParameter("--paged and --page-token go with --hist-item or --user-id, not with --input")
    info = client.get_server_info(channel=channel)
    text = has_text_ids(info)
    excluded = parse_ids(exclude, "--exclude", text)
    ask = functools.partial(
        client.recall,
        top_k=top_k,
        filter=filter,
        exclude_history=exclude_history,
        merge_strategy=merge_strategy_of(merge),
        neighbours=neighbours.value,
        return_attributes=attributes_of_option(attributes, info, titles=not (titles or input or format is Format.JSON)),
        exclude_shown=exclude_shown,
        at_most=at_most_of_option(at_most),
        per_interest_min=per_interest_min,
        diversity=diversity,
        boosts=boosts_of_options(boost, boost_newer),
        pin=parse_ids(pin, "--pin", text),
        explore=explore_of_options(explore, explore_filter, seed),
        release_rules=not no_release_rules,
        channel=channel,
        split_key=split_key,
    )
    if input is not None:
        with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as lines:
            _recall_file(ask, input, lines, excluded, info, named=exclude_shown)
        return
    result = ask([_user(user_id, hist_item, excluded, text)], paged=paged, page_token=token_of(page_token))
    response = recall_pb2.RecallResponse(
        results=result.results,
        model_version=result.model_versions[0],
        collection=result.collections[0],
        channel=result.channels[0],
        timings=result.timings[0],
        attributes_detail=result.attributes_detail,
        next_page_token=result.next_page_token,
    )
    view = candidates_view(result.results[0], read_titles(titles, text, titles_id_column) if titles else {})
    show(format, response, view, origin_line(response))
    _exit_if_refused(result.results[0])


@app.command(epilog="Example: recall-client explain --hist-item 43,23,65 --top-k 10 --titles items.csv")
@with_client
def explain(
    client: RecallClient,
    hist_item: Annotated[str | None, HIST_ITEM] = None,
    user_id: Annotated[str | None, typer.Option(help="Id of a remembered user.")] = None,
    top_k: TopK = 10,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    exclude: Exclude = "",
    merge: MergeOption = Merge.BEST_SCORE,
    neighbours: NeighboursOption = Neighbours.DEFAULT,
    exclude_shown: ExcludeShown = False,
    attributes: ReturnAttributes = "",
    at_most: AtMost = None,
    per_interest_min: PerInterestMin = 0,
    diversity: Diversity = 0,
    boost: BoostOption = None,
    boost_newer: BoostNewer = None,
    pin: Pin = "",
    explore: ExploreOption = 0,
    explore_filter: ExploreFilter = "",
    seed: Seed = 0,
    no_release_rules: NoReleaseRules = False,
    channel: Channel = "",
    split_key: SplitKey = "",
    titles: Titles = None,
    titles_id_column: TitlesIdColumn = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Show why a user gets these candidates: the clicks behind each interest, what it found, and what was dropped."""
    if hist_item is None and user_id is None:
        raise typer.BadParameter("give --hist-item or --user-id")
    info = client.get_server_info(channel=channel)
    text = has_text_ids(info)
    response = client.explain(
        _user(user_id, hist_item, parse_ids(exclude, "--exclude", text), text),
        top_k=top_k,
        filter=filter,
        exclude_history=exclude_history,
        merge_strategy=merge_strategy_of(merge),
        neighbours=neighbours.value,
        return_attributes=attributes_of_option(attributes, info, titles=not (titles or format is Format.JSON)),
        exclude_shown=exclude_shown,
        at_most=at_most_of_option(at_most),
        per_interest_min=per_interest_min,
        diversity=diversity,
        boosts=boosts_of_options(boost, boost_newer),
        pin=parse_ids(pin, "--pin", text),
        explore=explore_of_options(explore, explore_filter, seed),
        release_rules=not no_release_rules,
        channel=channel,
        split_key=split_key,
    )
    view = explain_view(response, read_titles(titles, text, titles_id_column) if titles else {})
    show(format, response, view, origin_line(response))
    _exit_if_refused(response.candidates)


def _exit_if_refused(candidates: recall_pb2.UserCandidates) -> None:
    """Exit with 1, as for a refused request, if the data of the only user broke a limit."""
    if candidates.status == recall_pb2.USER_STATUS_INVALID:
        raise typer.Exit(1)


def _user(user_id: str | None, hist_item: str | None, excluded: ItemIds, text: bool) -> recall_pb2.User:
    """The user of --user-id, --hist-item and --exclude."""
    user = user_of(parse_ids(hist_item or "", "--hist-item", text), excluded, MAX_HISTORY)
    user.user_id = user_id or ""
    return user


def _recall_file(
    ask: Callable[[list[recall_pb2.User]], RecallResult],
    path: Path,
    output: TextIO,
    excluded: ItemIds,
    info: recall_pb2.GetServerInfoResponse,
    named: bool,
) -> None:
    """Writes a JSON line for every user of the file; progress and summary go to standard error.

    Args:
        ask: for the candidates of some users.
        path: of the file.
        output: where the lines go.
        excluded: ids that must not come back, for every user.
        info: tells the kind of ids, and how many of a history the server accepts; of longer ones the newest are sent.
        named: whether the ids of users are sent too, for what they were shown.
    """
    check_own_ids(path)
    max_history = info.limits.max_history or MAX_HISTORY
    console = Console(stderr=True, highlight=False)
    statuses: Counter[str] = Counter()
    model_versions: dict[str, None] = {}
    started, cut = time.monotonic(), 0
    progress = Progress(console=console, transient=True)
    with progress, progress.open(path, "rb", description=path.name) as lines:
        users = read_users(lines, str(path), has_text_ids(info))
        while batch := list(itertools.islice(users, _USERS_PER_CALL)):
            cut += sum(len(user.hist_item) > max_history for user in batch)
            asked = [user_of(user.hist_item, excluded, max_history) for user in batch]
            for message, user in zip(asked, batch if named else [], strict=False):
                message.user_id = str(user.user_id)
            result = ask(asked)
            # One each, unless a release happened within the batch: then nobody knows which users it parted.
            release = {"model_version": ", ".join(result.model_versions), "collection": ", ".join(result.collections)}
            for user, candidates in zip(batch, result.results, strict=True):
                output.write(json.dumps({"user_id": user.user_id} | _output_fields(candidates) | release) + "\n")
                statuses[status_words(candidates.status)] += 1
            model_versions |= dict.fromkeys(result.model_versions)
    total = statuses.total()
    if not total:
        raise FileError(f"{path} has no users")
    elapsed_s = time.monotonic() - started
    parts = ", ".join(f"{number:,} {words}" for words, number in statuses.most_common())
    console.print(f"{total:,} users in {elapsed_s:.1f} s ({total / elapsed_s:,.0f} users/s): {parts}")
    if cut:
        console.print(f"{cut:,} histories are longer than {max_history:,} items; their newest items were sent")
    console.print(f"model {', '.join(model_versions)}")
    if len(model_versions) > 1:
        console.print(
            "the release changed during the run: do not compare the scores of different users", style="yellow"
        )


def _output_fields(candidates: recall_pb2.UserCandidates) -> dict[str, Any]:
    plain = to_plain(candidates)
    shown = ("item_ids", "scores", "interest", "source", "added", "status", "detail", "fallback", "attributes")
    return {name: plain[name] for name in shown if name not in ("attributes", "added") or plain[name]}
