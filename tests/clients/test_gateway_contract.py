"""The gateway keeps what its OpenAPI description promises: schemathesis sends what it allows and what it forbids."""

import copy
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from clients.gateway.app import create_app
from clients.gateway.ids import describe_text_ids
from clients.gateway.settings import Settings
from tests.canned_recall import CannedRecall, running
from tests.gateway import serving

schemathesis.openapi.format("int64", st.integers(-(2**63), 2**63 - 1).map(str))

INTEGERS = create_app(Settings()).openapi()
TEXT = copy.deepcopy(INTEGERS)
describe_text_ids(TEXT)
OPERATIONS = {
    (kind, f"{found.ok().method} {found.ok().path}"): found.ok()
    for kind, schema in (("integers", INTEGERS), ("text", TEXT))
    for found in schemathesis.openapi.from_dict(schema).get_all_operations()
}
MODES = [
    (kind, name, mode)
    for (kind, name), operation in OPERATIONS.items()
    for mode in GenerationMode
    if kind == "integers" or operation.body  # the others do not depend on the kind of ids
    if mode.is_positive or operation.body or operation.query  # without either nothing can be wrong
]


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """A gateway before a release with ids of each kind."""
    with (
        running(CannedRecall()) as integers,
        running(CannedRecall(keyed=True)) as text,
        serving("--server", integers, "--allow-users") as of_integers,
        serving("--server", text, "--allow-users") as of_text,
    ):
        yield {"integers": of_integers, "text": of_text}


@pytest.mark.parametrize(("kind", "operation", "mode"), MODES)
def test_the_description_is_kept(urls: dict[str, str], kind: str, operation: str, mode: GenerationMode) -> None:
    cases = OPERATIONS[kind, operation].as_strategy(generation_mode=mode)

    @given(case=cases)
    @settings(
        max_examples=20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def keep(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=urls[kind])

    keep()
