"""The thread that writes JSON lines: files that are moved away, disks that fail, readers that are slow."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from server.watching import line_sink
from server.watching.line_sink import LineSink


class Counted:
    """How many lines were written and dropped."""

    def __init__(self) -> None:
        self.written = self.dropped = 0

    def __call__(self, written: int, dropped: int) -> None:
        self.written += written
        self.dropped += dropped


def one(number: int) -> Any:
    return lambda: [{"number": number, "text": "ü\n"}]


def read(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_lines_follow_one_another_and_are_there_when_it_is_closed(tmp_path: Path) -> None:
    path, counted = tmp_path / "log.jsonl", Counted()
    path.write_text('{"number": 0}\n')
    sink = LineSink(str(path), counted)
    for number in range(1, 100):
        assert sink.offer(1, one(number))
    sink.close()
    assert read(path) == list(range(100)) and (counted.written, counted.dropped) == (99, 0)


def test_others_cannot_read_it(tmp_path: Path) -> None:
    sink = LineSink(str(tmp_path / "log.jsonl"))
    sink.close()
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_or_removed_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_sink, "REOPEN_S", 0)
    path, moved = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    done: list[threading.Event] = []

    def count(written: int, dropped: int) -> None:
        done.pop().set()

    sink = LineSink(str(path), count)

    def write(number: int) -> None:
        done.append(written := threading.Event())
        sink.offer(1, one(number))
        assert written.wait(30)

    write(1)
    path.rename(moved)
    write(2)
    path.unlink()
    write(3)
    sink.close()
    assert (read(moved), read(path)) == ([1], [3])


def test_lines_beyond_the_limit_and_of_a_broken_disk_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line_sink, "MAX_WAITING", 5)
    counted, go = Counted(), threading.Event()
    sink = LineSink(str(tmp_path / "log.jsonl"), counted)

    def slow() -> Any:
        go.wait(30)
        return [{"number": 1}]

    def broken(file: int, text: bytes) -> int:
        raise OSError(28, "No space left on device")

    assert sink.offer(1, slow) and sink.offer(4, one(2))
    assert not sink.offer(1, one(3)) and counted.dropped == 1
    monkeypatch.setattr(os, "write", broken)
    go.set()
    sink.close()
    assert (counted.written, counted.dropped) == (0, 6)
    assert [record.message for record in caplog.records] == [
        f"lines for {tmp_path / 'log.jsonl'} are dropped: [Errno 28] No space left on device"
    ]


def test_lines_that_cannot_be_made_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, counted = tmp_path / "log.jsonl", Counted()
    sink = LineSink(str(path), counted)
    sink.offer(1, lambda: [{"number": object()}])
    sink.offer(1, one(2))
    sink.close()
    assert read(path) == [2] and (counted.written, counted.dropped) == (1, 1)
    assert "could not be made" in caplog.text


def test_standard_output_is_a_file_too(capfd: pytest.CaptureFixture[str]) -> None:
    sink = LineSink("-")
    sink.offer(1, one(7))
    sink.close()
    assert json.loads(capfd.readouterr().out)["number"] == 7
