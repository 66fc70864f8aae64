"""Drills break a Milvus server that has the settings of users."""

import pytest


@pytest.fixture(scope="session")
def milvus_settings() -> dict[str, str]:
    """No settings but Milvus' own: what it loses when it is killed must not depend on how the tests hurry it."""
    return {}
