"""The gateway keeps what its OpenAPI description promises: schemathesis sends what it allows and what it forbids."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from clients.gateway.app import create_app
from clients.gateway.settings import Settings
from tests.canned_recall import CannedRecall, running
from tests.gateway import serving

schemathesis.openapi.format("int64", st.integers(-(2**63), 2**63 - 1).map(str))

API = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = {f"{found.ok().method} {found.ok().path}": found.ok() for found in API.get_all_operations()}
MODES = [
    (name, mode)
    for name, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode.is_positive or operation.body or operation.query  # without either nothing can be wrong
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(CannedRecall()) as target, serving("--server", target) as url:
        yield url


@pytest.mark.parametrize(("operation", "mode"), MODES)
def test_the_description_is_kept(url: str, operation: str, mode: GenerationMode) -> None:
    cases = OPERATIONS[operation].as_strategy(generation_mode=mode)

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
        case.call_and_validate(base_url=url)

    keep()
