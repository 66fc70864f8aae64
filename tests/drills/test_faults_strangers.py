"""A short version of `python -m tests.faults.strangers`."""

from pathlib import Path

from tests.conftest import remove_item_collections
from tests.faults.attacks import on_gateway, on_server
from tests.faults.strangers import drill


async def test_strangers_cost_the_others_little(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    server, gateway = on_server(calls=3_000), on_gateway(connections=600)
    _, half_sent, half_sent_checks, calls, _ = server
    chosen = {name: server[name] for name in (half_sent, half_sent_checks, calls)}
    *_, bodies = gateway
    findings, _ = await drill(milvus_server_uri, tmp_path, 1, chosen, {bodies: gateway[bodies]})
    assert not findings.faults
