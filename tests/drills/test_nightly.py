"""`python -m tests.faults.nightly`: seven nights, two with bad data, one killed in five steps, one rolled back."""

from collections.abc import Callable

import pytest


@pytest.mark.timeout(600)
def test_bad_nights_never_go_live(with_own_milvus: Callable[..., None]) -> None:
    with_own_milvus("nightly")
