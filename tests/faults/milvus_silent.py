"""Milvus hangs (SIGSTOP), is slow, or loses its connections, under load.

    python -m tests.faults.milvus_silent --seconds 10

Nobody may wait longer than the deadline, health must tell, and all must be well again by itself afterwards.
"""

import asyncio
from pathlib import Path

import typer

from tests.faults.ground import Findings, make_models, own_milvus, release, say, serving, until_health
from tests.faults.load import POPULAR, SETTLE_S, Answers, Load, begin
from tests.faults.proxy import Proxy
from tests.milvus_server import Milvus

CALLERS, TIMEOUT_S = 8, 1.0
SEARCH_TIMEOUT_MS = 2_000
DELAYS_MS = (10, 100, 300, 1_000)
"""Each way: a search takes twice that."""
BACK_S = 10


class Drill:
    """Two servers behind one proxy, both under load; each fault is brought on, borne and taken away."""

    def __init__(self, proxy: Proxy, milvus: Milvus, address: str, loads: tuple[Load, Load], seconds: float) -> None:
        """`address`: of the server as it comes, whose health is asked; `loads`: on it, and on the degraded one."""
        self.findings = Findings()
        self._proxy = proxy
        self._milvus = milvus
        self._address = address
        self._loads = loads
        self._seconds = seconds

    async def slow(self, delay_ms: int) -> None:
        """Everything comes late, each way."""
        await self._begin(f"{delay_ms} ms late")
        self._proxy.delay_ms = delay_ms
        await asyncio.sleep(self._seconds)
        if 2 * delay_ms < TIMEOUT_S * 1000 / 2:  # a search fits into a deadline, and so does one that waits for another
            self._expect_none_failed(f"{delay_ms} ms late", share=0.05)  # on a machine that is busy with other things
        self._proxy.delay_ms = 0
        await self._recover(f"{delay_ms} ms late")

    async def reset(self) -> None:
        """All connections are reset, once a second."""
        await self._begin("resets")
        for _ in range(int(self._seconds)):
            self._proxy.reset()
            await asyncio.sleep(1)
        self._expect_none_failed("resets")
        await self._recover("resets")

    async def hang(self) -> None:
        """Connections stay open and nobody answers."""
        await self._begin("hung")
        await asyncio.to_thread(self._milvus.pause)
        load, fallen_back = self._loads
        to_down, to_failing, to_degraded = await asyncio.gather(
            until_health(self._address, False, self._seconds),
            load.until("STORE_UNAVAILABLE", self._seconds),
            fallen_back.until("DEGRADED", self._seconds),
        )
        self.findings.seconds("hung: to NOT_SERVING", to_down, SEARCH_TIMEOUT_MS / 1000 + 3)
        self.findings.seconds("hung: to failing at once", to_failing, SEARCH_TIMEOUT_MS / 1000 + 3)
        self.findings.seconds("hung: to the first degraded answer", to_degraded, TIMEOUT_S + 1)
        begin("hung, noticed", *self._loads)
        await asyncio.sleep(max(self._seconds - max(to_down, to_failing), 1))
        await asyncio.to_thread(self._milvus.resume)
        await self._recover("hung")

    async def _begin(self, name: str) -> None:
        say(name)
        begin(name, *self._loads)
        await asyncio.sleep(SETTLE_S)

    async def _recover(self, fault: str) -> None:
        """Wait until all is well, and see that it stays so."""
        begin(f"{fault}, over", *self._loads)
        *to_answers, to_serving = await asyncio.gather(
            *(load.until("OK", BACK_S) for load in self._loads), until_health(self._address, True, BACK_S)
        )
        self.findings.seconds(f"{fault}, over: to the first answer", max(to_answers), BACK_S)
        self.findings.seconds(f"{fault}, over: to SERVING", to_serving, BACK_S)
        await asyncio.sleep(SETTLE_S)
        begin("well", *self._loads)
        await asyncio.sleep(max(self._seconds / 4, 1))
        self._expect_none_failed(f"well after {fault}")

    def _expect_none_failed(self, when: str, share: float = 0) -> None:
        for load in self._loads:
            now = load.phases[-1]
            self.findings.expect(now.failed <= share * now.calls, f"{when}: {dict(now.outcomes)}")


async def drill(
    milvus: Milvus, directory: Path, seconds: float, delays_ms: tuple[int, ...]
) -> tuple[Findings, tuple[Load, Load]]:
    """Run it.

    Args:
        milvus: without item collections and release alias.
        directory: empty.
        seconds: how long each fault lasts. Milvus ends itself when it is stopped for much longer than 10.
        delays_ms: of the proxy, each way.

    Returns:
        What was found, and what the callers of a server as it comes and of one with `--degraded` met.
    """
    models = make_models(directory / "artifacts", 1)
    await asyncio.to_thread(release, milvus.uri, *models)
    answers, artifacts = Answers(models), directory / "artifacts"
    limit = ("--search-timeout-ms", str(SEARCH_TIMEOUT_MS))
    async with (
        Proxy(milvus.uri) as proxy,
        serving(f"http://{proxy.address}", artifacts, *limit) as (plain,),
        serving(f"http://{proxy.address}", artifacts, *limit, "--degraded") as (degraded,),
        Load([plain.address], answers, CALLERS, TIMEOUT_S) as load,
        Load([degraded.address], answers, CALLERS, TIMEOUT_S) as fallen_back,
    ):
        loads = (load, fallen_back)
        faults = Drill(proxy, milvus, plain.address, loads, seconds)
        await asyncio.sleep(1)
        for delay_ms in delays_ms:
            await faults.slow(delay_ms)
        await faults.reset()
        await faults.hang()
    return faults.findings, loads


def judge(findings: Findings, load: Load, fallen_back: Load) -> None:
    """Hold what the callers met against what they may meet."""
    for each in (load, fallen_back):
        for phase in each.phases[1:]:
            findings.expect(phase.wrong == phase.late == 0, f"{phase.name}: {phase.wrong} wrong, {phase.late} late")
            allowed = {"OK", "DEGRADED", POPULAR, "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED"}
            findings.expect(set(phase.outcomes) <= allowed, f"{phase.name}: {dict(phase.outcomes)}")
    noticed = next(phase for phase in fallen_back.phases if phase.name == "hung, noticed")
    findings.expect(noticed.failed == 0, f"--degraded, hung, noticed: {dict(noticed.outcomes)}")


def main(seconds: float = 10) -> None:
    """Make Milvus slow, cut its connections, stop it."""
    with own_milvus() as (milvus, directory):
        findings, loads = asyncio.run(drill(milvus, directory, seconds, DELAYS_MS))
        judge(findings, *loads)
        say(str(loads[0].reasons.most_common(8)))
        findings.close(loads[0].table("as it comes"), loads[1].table("--degraded"))


if __name__ == "__main__":
    typer.run(main)
