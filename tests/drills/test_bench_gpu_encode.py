"""The benchmark of encoders: every encoder that there is measured, and what does not fit named."""

import sys

import pytest

from tests.bench import gpu_encode
from tests.fake_cupy import FakeCupy


def test_it_measures_what_fits_and_names_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cupy = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.delitem(sys.modules, "mind.cupy_encoder", raising=False)
    cupy.free_bytes = 1_000_000  # 2,000 items take 0.5 MB, 9,000 take 2.3 MB
    gpu_encode.main([2_000, 9_000], [64, 8])
    shown = capsys.readouterr().out
    assert "GPU: Stand-in, 80 GB" in shown
    small, _, large = shown.partition("9,000 items, cupy: left out, it needs 0.0 GB of the GPU")
    for part, encoders in ((small, ("numpy", "cupy", "paddle, ")), (large, ("numpy", "paddle, "))):
        rows = [line.split("│") for line in part.splitlines() if "│" in line]
        assert [row[1].strip() for row in rows] == [size for size in ("8", "64") for _ in encoders]
        assert all(row[2].strip().startswith(name) for row, name in zip(rows, encoders * 2, strict=True))


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    gpu_encode.main([500], [8])
    assert "GPU: unknown, for CuPy is not installed (extra cupy)" in capsys.readouterr().out
