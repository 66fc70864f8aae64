"""A ranking service in five steps, from its first question to the log that the next model learns from.

    python clients/examples/ranking_service.py localhost:50051

It needs the release of the tutorial's shop, or another one with text ids, titles, departments and prices, and a
server with --feedback-log. Visitors are made up: each likes one department and clicks the best of it in every list.
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clients import RecallClient, attributes_of, ids_of
from protos.recall.v1 import recall_pb2

ATTRIBUTES = ("title", "department", "price")
AT_MOST = {"department": 4}
"""No list has more items of one department."""
TOP_K = 10
VISITORS, VISITS = 120, 4
"""Visitors of the day, and how often each of them comes."""


@dataclass(frozen=True)
class Candidate:
    """What the ranking service knows of a candidate."""

    item_id: str
    title: str
    department: str
    price: float
    score: float


@dataclass
class Visitor:
    """Somebody on the page."""

    user_id: str
    likes: str
    history: list[str] = field(default_factory=list)


def candidates_of(found: recall_pb2.UserCandidates) -> list[Candidate]:
    """The candidates of one user, with their attributes."""
    columns = attributes_of(found)
    return [
        Candidate(*row)
        for row in zip(ids_of(found, "item_ids"), *(columns[name] for name in ATTRIBUTES), found.scores, strict=True)
    ]


def rank(candidates: list[Candidate]) -> list[Candidate]:
    """Order candidates by score, cheaper ones a little earlier. Your ranking model stands here."""
    return sorted(candidates, key=lambda one: one.score - 0.005 * one.price, reverse=True)


def heading(text: str) -> None:
    """Print the title of a step."""
    print(f"\n{text}\n{'-' * len(text)}")


def show(candidates: list[Candidate]) -> None:
    """Print ranked candidates."""
    for one in candidates:
        print(f"  {one.item_id:>10}  {one.price:>7.2f}  {one.score:>7.4f}  {one.title}")


def look(client: RecallClient) -> list[Candidate]:
    """Step 1: ask what is served, and for the popular items with which a new visitor begins."""
    heading("1. What is served")
    info = client.get_server_info()
    have = {attribute.name for attribute in info.attributes}
    if missing := set(ATTRIBUTES) - have:
        sys.exit(f"items have no {', '.join(sorted(missing))}: build with --attributes of the tutorial's items.csv")
    if not info.feedback_enabled:
        sys.exit("the server writes no feedback: start it with --feedback-log FILE")
    print(f"model {info.model_version}, attributes {', '.join(sorted(have))}")
    [found] = client.recall([[]], top_k=TOP_K, return_attributes=ATTRIBUTES, at_most=AT_MOST).results
    popular = candidates_of(found)
    show(popular)
    return popular


def scroll(client: RecallClient, history: list[str]) -> None:
    """Steps 2 and 3: two pages for a visitor, with attributes and without too many items of one department."""
    question: dict[str, Any] = {
        "top_k": TOP_K,
        "return_attributes": ATTRIBUTES,
        "at_most": AT_MOST,
        "exclude_history": True,
    }
    heading("2. Candidates with attributes, at most four of a department")
    first = client.recall([history], paged=True, **question)
    seen = candidates_of(first.results[0])
    show(rank(seen))
    print("departments:", dict(Counter(one.department for one in seen)))

    heading("3. The next page")
    second = client.recall([history], page_token=first.next_page_token, **question)
    more = candidates_of(second.results[0])
    show(rank(more))
    print(f"{len({one.item_id for one in seen} & {one.item_id for one in more})} items are on both pages")


def serve_the_day(client: RecallClient, departments: list[str]) -> int:
    """Step 4: answer visitors and log what they click. Returns the number of clicks.

    The requests of visitors who come at the same time are one batch.
    """
    heading("4. A day of visitors, and what they click")
    draw = random.Random(7)
    visitors = [Visitor(f"visitor {number}", draw.choice(departments)) for number in range(VISITORS)]
    clicks, now_ms = 0, int(time.time() * 1000)
    for visit in range(VISITS):
        histories = [visitor.history for visitor in visitors]
        answer = client.recall(histories, top_k=TOP_K, return_attributes=ATTRIBUTES, at_most=AT_MOST)
        for visitor, found in zip(visitors, answer.results, strict=True):
            ranked = rank(candidates_of(found))
            liked = [one.item_id for one in ranked if one.department == visitor.likes] or [ranked[0].item_id]
            clicked = draw.sample(liked, min(2, len(liked)))
            # The time of the click, if it was not just now; the id of the list tells which list was clicked.
            client.log_feedback(
                "click", clicked, user_id=visitor.user_id, recall_id=found.recall_id, time_ms=now_ms + visit
            )
            visitor.history += clicked
            clicks += len(clicked)
        print(f"visit {visit + 1}: {clicks:,} clicks of {VISITORS} visitors")
    return clicks


def main(target: str) -> None:
    """Take all steps."""
    with RecallClient(target, timeout_s=10) as client:
        popular = look(client)
        scroll(client, [popular[0].item_id, popular[-1].item_id])
        clicks = serve_the_day(client, sorted({one.department for one in popular}))
    heading("5. Train on the log")
    print(f"{clicks:,} clicks are in the log of the server. mind.prepare reads it as it is.")


if __name__ == "__main__":
    main(*sys.argv[1:])
