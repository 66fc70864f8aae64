"""The sizing calculator, by arithmetic that a reader can follow."""

import json
import math
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from clients.cli import app
from clients.size import SEARCH_COST, SERVER_GB, SERVER_GB_PER_MILLION, Load, amount, size
from tests import ROOT

PERFORMANCE, SCALING = (
    (ROOT / f"docs/{page}.md").read_text() for page in ("explanation/performance", "how-to/scaling")
)
SMALL = Load(items=367_982, users_per_s=10_000)
"""What was measured, but for the number of users: one segment, so a search costs what it cost."""


def ask(*arguments: str):
    return CliRunner().invoke(app, ["size", *arguments], env={"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"})


def test_servers_are_one_core_each_with_headroom():
    servers = size(SMALL).servers
    assert servers.cores == pytest.approx(10 * 0.25)  # 10,000 users/s, 0.25 s for 1,000
    assert servers.processes == math.ceil(2.8 / (1 - 0.4))
    assert servers.gb_each == pytest.approx(0.2 + 2 * 0.367982 * 0.28)  # two models


def test_users_who_come_together_cost_a_server_less():
    def cost(users_per_request):
        return size(replace(SMALL, users_per_request=users_per_request)).servers.cores / 10

    assert cost(64) == pytest.approx(0.07)
    per_request = cost(1) - cost(2)  # half of what a request costs on top of its users
    assert cost(2) - cost(4) == pytest.approx(per_request / 2)
    assert cost(64) < cost(8) < cost(1)


def test_milvus_takes_the_more_of_cores_and_memory():
    load = replace(SMALL, node_cores=4)
    milvus = size(load).milvus
    assert milvus.segments == 1
    assert milvus.cores == pytest.approx(10 * 0.8)
    assert milvus.query_nodes == math.ceil(8 / 0.6 / 4)  # cores decide
    assert milvus.gb == pytest.approx(2 * 3 * 0.367982 * 0.6 + 4 * 0.25)  # replicas x collections, and the nodes
    idle = size(replace(load, users_per_s=1, node_gb=1.0)).milvus
    assert idle.query_nodes == math.ceil(2 * 3 * 0.367982 * 0.6 / (1 * 0.9 - 0.25))  # memory decides


def test_every_segment_is_searched():
    load = replace(SMALL, items=100e6)
    rows = 1024 * 2**20 / (64 * 4 + 8)  # that fit into a segment
    milvus = size(load).milvus
    assert milvus.segments == math.ceil(100e6 / rows) == 25
    deeper = math.log(4e6) / math.log(1.23e6)  # a graph of 4 million items instead of 1.23 million
    assert milvus.cores == pytest.approx(10 * 0.8 * 25 * 1.9 * deeper)
    assert size(replace(load, segment_mb=4096)).milvus.segments == 7
    assert size(replace(load, milvus_cpu_s=3)).milvus.cores == pytest.approx(30)


def test_a_larger_segment_costs_more_and_less_than_several_small_ones():
    def cost(items, segment_mb=1024):
        return size(replace(SMALL, items=items, segment_mb=segment_mb)).milvus.cores / (10 * 0.8)

    for items, measured in SEARCH_COST.items():
        assert cost(items) == pytest.approx(measured)
    assert 1 < cost(600_000) < 1.9
    assert cost(1_000) == pytest.approx(0.4)  # what every search costs
    assert cost(3_690_000, segment_mb=310) == pytest.approx(3 * 1.9)
    assert cost(3_690_000) < 2.1


def test_longer_lists_and_vectors_cost_more():
    cores = {k: size(replace(SMALL, top_k=k)).servers.cores / 2.5 for k in (10, 50, 125, 200, 1000)}
    assert cores[50] == pytest.approx(1)
    assert cores[200] == pytest.approx(1900 / 1400)  # users/s that one machine answered
    assert cores[125] == pytest.approx((1 + 1900 / 1400) / 2)
    assert cores[1000] == pytest.approx(1900 / 310)
    assert cores[10] == pytest.approx(1900 / 2060)
    wide = size(replace(SMALL, dim=128))
    assert wide.milvus.cores == pytest.approx(2 * 8)
    assert wide.servers.gb_each == pytest.approx(0.2 + 2 * 0.367982 * (0.28 + 64 * 4 / 1000))


def test_what_was_extrapolated_is_labelled():
    def extrapolated(load):
        return [each.extrapolated for each in size(load).assumptions[:4]]  # server, Milvus, memory of both

    assert extrapolated(SMALL) == [False, False, False, False]
    assert extrapolated(replace(SMALL, users_per_request=8)) == [True, False, False, False]
    assert extrapolated(replace(SMALL, items=1e6)) == [False, False, False, False]
    assert extrapolated(replace(SMALL, items=3e6)) == [False, True, False, False]  # no segment had so many
    assert extrapolated(replace(SMALL, items=3e6, segment_mb=310)) == [False, False, False, False]
    assert extrapolated(replace(SMALL, items=10e6, segment_mb=310)) == [False, True, True, True]
    assert extrapolated(replace(SMALL, items=10e6, milvus_cpu_s=1)) == [False, False, True, True]


def test_the_coefficients_are_those_of_the_documentation():
    flat = " ".join(PERFORMANCE.split())
    assert "367,982 items x 64" in flat
    assert "cost** 0.07 s of processor time in requests of 64, 0.25 s one by one, and 0.6 to 0.8 s in Milvus" in flat
    for items, cost in list(SEARCH_COST.items())[:2]:
        assert f"| {items:,} | {cost:g} |" in PERFORMANCE
    assert "| 3,700,000 in three segments | 5.7 |" in PERFORMANCE  # each of these 1.9
    assert f"A server process takes {SERVER_GB:g} GB, whatever" in flat
    assert f"{SERVER_GB_PER_MILLION:g} GB for every million items of 64 numbers, once for all processes" in flat
    assert "Milvus takes 0.25 GB and 0.6 GB for every million." in flat
    assert "top 10, 50, 200 and 1,000 serve 2,060, 1,900, 1,400 and 310 users/s" in flat


@pytest.mark.parametrize(
    ("text", "number"),
    [("20000", 20_000), ("20k", 20_000), ("100M", 1e8), ("1.5G", 1.5e9), ("1,000", 1_000), ("2B", 2e9)],
)
def test_amounts(text, number):
    assert amount(text) == number


def test_the_command_answers_people_and_programs():
    shown = ask("--items", "100M", "--qps", "20k", "--top-k", "50", "--users-per-request", "64")
    assert shown.exit_code == 0
    assert "server processes" in shown.output
    assert "extrapolated" in shown.output
    figures = [line.rstrip() for line in shown.output.splitlines() if re.match(" (server|Milvus) ", line)]
    assert "\n".join(figures) in SCALING
    answer = json.loads(ask("--items", "100M", "--qps", "20k", "--format", "json").output)
    assert answer["load"]["items"] == 1e8
    assert answer["milvus"]["segments"] == 25
    assert {each["extrapolated"] for each in answer["assumptions"]} == {True, False}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--items", "many", "--qps", "1"], "'many' is not an amount such as 20000, 20k or 100M"),
        (["--items", "0", "--qps", "1"], "items is 0: it must be above 0"),
        (["--items", "1M", "--qps", "1", "--headroom", "1"], "headroom is 1: it must be at least 0 and below 1"),
        (["--items", "1M", "--qps", "1", "--top-k", "2000"], "top_k is 2000: measured up to 1,000"),
        (["--items", "1M", "--qps", "1", "--node-gb", "0.2"], "node_gb is 0.2: Milvus alone takes 0.25 GB"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(arguments, says):
    result = ask(*arguments)
    assert result.exit_code == 1
    assert says in result.output
