"""The report: one well-formed page that fetches nothing, with every text escaped and its numbers in its sentences."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mind.artifact import Artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.candidates import Served
from mind.evaluation.evaluate import EXACT, Evaluation, Lists, evaluate, measure
from mind.evaluation.report import interests_in_words, render
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.sequences import EvalCases
from tests.artifacts import hyper_parameters_of, make_weights
from tests.server.test_metrics import sequences

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "line", "use", "rect"}
SERVED = "MIND, served"
EVIL = '<script>alert("x")</script>'
EPOCHS = [
    {"epoch": n, "loss": 5 - n / 2, "valid": {"recall@20": 0.1, "ndcg@20": 0.05, "recall@50": 0.2 + value}}
    for n, value in ((1, 0.0), (2, 0.05), (3, 0.03))
]


class Page(HTMLParser):
    """Checks that tags pair up, ids are unique and nothing is fetched; collects the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def evaluation(served: Served | None = None, users: int = 30, interests: int = 4) -> Evaluation:
    """A random model on random users, with a list whose name needs escaping."""
    weights = make_weights(items=60, interests=interests)
    curves = {"epoch": 2, "loss": 4.0, "valid": EPOCHS[1]["valid"], "epochs": EPOCHS}
    model = Artifact("0123456789ab", hyper_parameters_of(weights), weights, metrics=curves)
    rng = np.random.default_rng(1)

    def rows(least: int, most: int) -> list[list[int]]:
        return [rng.choice(weights.item_id, rng.integers(least, most)).tolist() for _ in range(users)]

    cases = EvalCases(sequences(*rows(1, 30)), sequences(*rows(1, 9)))
    encoder = NumpyEncoder(weights, model.hyper_parameters)
    vectors = encode_histories(encoder, model.vocabulary, cases.history, 8, 64)
    found = item_ids(model.vocabulary, nearest_items(vectors, weights.item_embedding, 10))
    popular = np.repeat(weights.item_id[None, :10], users, axis=0)
    ranked = {"most popular": popular, EXACT: found, **({SERVED: found} if served else {}), f"{EVIL}$_{{": popular}
    measured = {name: measure(one, cases) for name, one in ranked.items()}
    lists = Lists(ranked, ("most popular",), vectors, {SERVED: served} if served else {})
    return evaluate(model, cases, lists, measured, (5, 10), 2024, lambda *_: None)


@pytest.fixture(scope="module")
def served() -> Evaluation:
    return evaluation(Served("ffff00001111", "items_ffff"))


def test_one_page_that_fetches_nothing(served: Evaluation) -> None:
    text = render(served, {1000: EVIL, 1007: "日本語 & more"})
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.references and all(reference.startswith("#") for reference in page.references)
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert "http" not in text and "@import" not in text
    assert EVIL in page.text and EVIL not in text
    assert "日本語 & more" in page.text
    assert page.tags.count("figure") == text.count('role="img"') == text.count('-title"><title id=') > 10


def test_its_sentences_are_made_of_its_numbers(served: Evaluation) -> None:
    text = " ".join(Page(render(served, {})).text.replace("\u00a0", " ").split())
    mine, popular = (100 * served.metrics[name]["recall@10"] for name in (EXACT, "most popular"))
    assert f"Among 10 candidates MIND has {mine:.1f} % of what a user clicked afterwards" in text
    assert f"“most popular”, has {popular:.1f} %" in text
    assert "The loss fell from 4.500 to 3.500 in 3 epochs" in text
    assert "validation recall@50 was highest, 25.0 %, in epoch 2 and at most 2.0 points lower" in text
    assert f"bring {100 * served.spread[EXACT].coverage[-1]:.1f} % of 60 items to somebody" in text
    assert f"merged they have {100 * served.interests.merged_recall:.1f} %" in text
    assert "It was served by another model, ffff00001111" in text and "100.00 % of the exact top 10" in text


def test_examples_show_history_hits_and_interests(served: Evaluation) -> None:
    groups = {example.group for example in served.examples}
    assert groups == {"highest recall", "nearest to the median", "no hit"} and len(served.examples) == 12
    best = served.examples[0]
    assert any(one.hit for one in best.candidates) and {one.interest for one in best.candidates} <= {0, 1, 2, 3}
    assert not any(one.hit for example in served.examples if example.group == "no hit" for one in example.candidates)
    page = render(served, {})
    assert page.count('class="hit"') == sum(one.hit for example in served.examples for one in example.candidates)


def test_interests_of_examples_are_told_in_words_of_titles(served: Evaluation) -> None:
    example = max(served.examples, key=lambda one: len({each.interest for each in one.candidates}))
    numbers = sorted({one.interest for one in example.candidates})
    words = dict(zip(numbers, ("knife", "garden", "lamp", "chair"), strict=False))
    titles = {one.item_id: f"the {words[one.interest]} 12" for one in example.candidates}
    said = interests_in_words(example, titles)
    several = [number for number in numbers if sum(one.interest == number for one in example.candidates) > 1]
    assert several and all(f"{number}: {words[number]}" in said for number in several)
    assert example.cosine is not None and f"mean cosine between interests {example.cosine:.2f}" in said
    assert said in Page(render(served, titles)).text
    alone = next(one for one in evaluation(interests=1).examples)
    assert interests_in_words(alone, {}) == ""


def test_models_without_curves_service_or_several_interests() -> None:
    plain = replace(evaluation(interests=1), training={"epoch": 1, "loss": 2.0})
    page = Page(render(plain, {}))
    assert "no training curves" in page.text and "There is one interest to a user" in page.text
    assert "Served against" not in page.text
    assert "All histories have about the same length" in Page(render(evaluation(users=1), {})).text


def test_many_interests(served: Evaluation) -> None:
    Page(render(evaluation(interests=10), {}))
