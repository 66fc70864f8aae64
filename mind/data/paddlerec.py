"""Reads and writes PaddleRec's file formats for sequential recommendation (its AmazonBook data).

    training      uid,item_id,time
    evaluation    user_id:U target_item:0 hist_item:I hist_item:I ... eval_item:J ...

If clicks have kinds, a training line ends with the role of the click, and an evaluation line with `role:R ...`, one for
each eval_item. Roles are positions in the roles of `events.json` (`mind.data.parts`).

Programs write these files, so a line that breaks the format is an error and is not skipped.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from mind.data.files import replacing
from mind.data.parts import EVENTS, beside, read_roles
from mind.data.text_blocks import shorten
from mind.data.user_ranges import ALL, UserRange
from mind.errors import DataError
from mind.events import Role, Roles
from mind.sequences import EvalCases, Int64, Sequences

BLOCK_BYTES = 1 << 24
"""Number of bytes of a training file that are read at a time."""
_TRAIN_COLUMNS = ["uid", "item_id", "time"]
_ROLE = "role"
_EVAL_LINE = re.compile(
    r"user_id:(-?\d{1,19}) target_item:-?\d{1,19}((?: hist_item:-?\d{1,19})*)((?: eval_item:-?\d{1,19})+)"
    r"((?: role:\d{1,3})*)",
    re.ASCII,
)
_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_MAY_FOLLOW = {
    "": ("user_id",),
    "user_id": ("target_item",),
    "target_item": ("hist_item", "eval_item"),
    "hist_item": ("hist_item", "eval_item"),
    "eval_item": ("eval_item",),
    "role": ("role",),
}


def data_files(path: Path) -> list[Path]:
    """Return the files of a data set: the file itself, or the files of a directory by name without hidden ones.

    Raises:
        DataError: there are no files.
    """
    if path.is_file():
        return [path]
    try:
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; `python -m mind.prepare` writes such data"
        ) from error
    if not files:
        raise DataError(f"{path}: the directory holds no files")
    return files


def digests(path: Path) -> dict[str, str]:
    """Return the sha256 of each file of a data set, by name. Raises DataError."""
    found = {}
    for file in data_files(path):
        try:
            with file.open("rb") as content:
                found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    return found


def read_train(path: Path) -> Sequences:
    """Read all training lines. See `read_share`. Raises DataError."""
    sequences = read_share(path, ALL).sequences
    if not len(sequences):
        raise DataError(f"{path}: no interactions")
    return sequences


@dataclass(frozen=True)
class Share:
    """The training lines of some users, and their position among all lines, ordered by user."""

    sequences: Sequences
    """The sequences of these users; empty if none of them occurs."""
    before: int
    """Number of lines of users with smaller ids."""
    total: int
    """Number of lines of all users."""


def read_share(path: Path, users: UserRange) -> Share:
    """Read training lines of one file or all files of a directory. Users ascend, and their items are sorted by time.

    Files are streamed, and only lines of the given users stay in memory. Lines that are already sorted by user and
    time, as `write_train` writes them, need 8 bytes of memory each. Other lines are sorted and need about 50 bytes
    each.

    Raises:
        DataError: a line is not `uid,item_id,time` with integers of 64 bits, or it has a role without a description.
    """
    files = data_files(path)
    roles = read_roles(path) if _have_roles(path, files) else None
    batches = _Batches(files, roles is not None, users)
    sequences = _read_sorted(batches)
    if sequences is None:
        batches = _Batches(files, roles is not None, users)
        sequences = _read_and_sort(batches)
    return Share(_with_roles(path, sequences, sequences.role, roles), batches.before, batches.total)


def read_eval(path: Path) -> EvalCases:
    """Read evaluation lines of one file or all files of a directory, in their order.

    Raises:
        DataError: a line breaks the format, or there are no lines.
    """
    rows = [row for file in data_files(path) for row in _read_eval_file(file)]
    if not rows:
        raise DataError(f"{path}: no users")
    user_id, history, target, role = zip(*rows, strict=True)
    users, every = np.concatenate(user_id), np.concatenate(role)
    roles = read_roles(path) if len(every) else None
    targets = _with_roles(path, _sequences(users, target), every if roles else None, roles)
    return EvalCases(_sequences(users, history), targets)


def write_train(path: Path, sequences: Sequences) -> None:
    """Write sequences as training lines. The time is the position in the sequence.

    Raises:
        DataError: the file cannot be written. An earlier file at this path stays as it was.
    """
    options = pa_csv.WriteOptions(include_header=False)
    names = [*_TRAIN_COLUMNS, *([] if sequences.role is None else [_ROLE])]
    schema = pa.schema([(name, pa.uint8() if name == _ROLE else pa.int64()) for name in names])
    with replacing(path) as file, pa_csv.CSVWriter(file, schema, write_options=options) as writer:
        for part in sequences.parts():
            user_id = np.repeat(part.user_id, part.lengths)
            time = np.arange(len(user_id)) - np.repeat(part.offsets[:-1], part.lengths)
            columns = [user_id, part.item_id, time, *([] if part.role is None else [part.role])]
            writer.write_table(pa.table(columns, names))


def write_eval(path: Path, cases: EvalCases) -> None:
    """Write held-out users as evaluation lines.

    Raises:
        DataError: the file cannot be written. An earlier file at this path stays as it was.
    """
    with replacing(path) as file, file.open("w", encoding="ascii", newline="\n") as lines:
        for user, user_id in enumerate(cases.history.user_id.tolist()):
            history = "".join(f" hist_item:{item_id}" for item_id in cases.history[user].tolist())
            target = "".join(f" eval_item:{item_id}" for item_id in cases.target[user].tolist())
            role = "".join(f" {_ROLE}:{role}" for role in _roles_at(cases.target, user))
            lines.write(f"user_id:{user_id} target_item:0{history}{target}{role}\n")


def _roles_at(sequences: Sequences, user: int) -> list[int]:
    """Return the roles of a user's items; empty without kinds."""
    if sequences.role is None:
        return []
    return list(sequences.role[sequences.offsets[user] : sequences.offsets[user + 1]].tolist())


def _have_roles(path: Path, files: list[Path]) -> bool:
    """Return whether the first line has a role that a file beside the data describes. All lines must be like it."""
    for file in files:
        try:
            with file.open("rb") as content:
                begin = content.read(1 << 10).lstrip().split(b"\n")[0]
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
        if begin:
            return begin.count(b",") == len(_TRAIN_COLUMNS) and beside(path, EVENTS).is_file()
    return False


def _with_roles(path: Path, sequences: Sequences, role: Role | None, roles: Roles | None) -> Sequences:
    """Return the sequences with the roles of their items. Raises DataError if there is no such role."""
    if role is None or roles is None:
        return replace(sequences, role=None)
    if role.max(initial=0) >= len(roles.kinds):
        raise DataError(
            f"{path}: a line has the role {role.max()}, {EVENTS} has 0 to {len(roles.kinds) - 1}; prepare the data "
            "again"
        )
    return replace(sequences, role=role.astype(np.uint8), roles=roles)


class _Batches:
    """The lines of some users in the order of the files, about 100,000 at a time, and their number."""

    def __init__(self, files: list[Path], has_roles: bool, users: UserRange) -> None:
        self.has_roles = has_roles
        self.before = self.total = 0
        self._files, self._users = files, users

    def __iter__(self) -> Iterator[tuple[Int64, Int64, Int64, Role]]:
        for user_id, item_id, time, role in _batches(self._files, self.has_roles):
            mine = self._users.holds(user_id)
            self.total += len(user_id)
            self.before += int(self._users.below(user_id).sum())
            if mine.all():
                yield user_id, item_id, time, role
            elif mine.any():
                yield user_id[mine], item_id[mine], time[mine], role[mine] if self.has_roles else role


def _read_sorted(batches: _Batches) -> Sequences | None:
    """Read lines that are sorted by user and time. Return None as soon as a line is out of order."""
    items: list[Int64] = []
    starts: list[Int64] = []  # positions at which users begin
    users: list[Int64] = []
    roles: list[Role] = []
    last_user, last_time, rows = None, 0, 0
    for user_id, item_id, time, role in batches:
        if last_user is not None:
            user_id, time = np.append(last_user, user_id), np.append(last_time, time)
        change = user_id[1:] != user_id[:-1]
        if ((user_id[1:] < user_id[:-1]) | (~change & (time[1:] < time[:-1]))).any():
            return None
        start = np.flatnonzero(change if last_user is not None else np.append(True, change))
        users.append(user_id[-len(item_id) :][start])
        starts.append(start + rows)
        items.append(item_id)
        roles.append(role)
        last_user, last_time, rows = user_id[-1], time[-1], rows + len(item_id)
    if not rows:
        return Sequences(np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64))
    offsets = np.append(np.concatenate(starts), rows)
    return Sequences(np.concatenate(users), offsets, np.concatenate(items), np.concatenate(roles))


def _read_and_sort(batches: _Batches) -> Sequences:
    columns: tuple[list[Any], ...] = tuple([np.zeros(0, kind)] for kind in (np.int64, np.int64, np.int64, np.uint8))
    for batch in batches:
        for column, values in zip(columns, batch, strict=True):
            column.append(values)
    user_id, item_id, time, role = (np.concatenate([column.pop(0) for _ in range(len(column))]) for column in columns)
    order = np.lexsort((time, user_id))
    del time
    user_id = user_id[order]
    users, start = np.unique(user_id, return_index=True)
    return Sequences(users, np.append(start, len(user_id)), item_id[order], role[order] if batches.has_roles else None)


def _batches(files: list[Path], has_roles: bool) -> Iterator[tuple[Int64, Int64, Int64, Role]]:
    """Yield user, item, time and role of the lines, about 100,000 at a time. Only roles may be empty."""
    names = [*_TRAIN_COLUMNS, _ROLE][: 3 + has_roles]
    types = dict.fromkeys(_TRAIN_COLUMNS, pa.int64()) | ({_ROLE: pa.uint8()} if has_roles else {})
    for file in files:
        try:
            if not file.stat().st_size:
                continue
            reader = pa_csv.open_csv(
                file,
                pa_csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
                pa_csv.ParseOptions(quote_char=False),
                pa_csv.ConvertOptions(column_types=types, null_values=[]),
            )
            for batch in reader:
                if len(batch):
                    user_id, item_id, time, *role = (np.array(column.to_numpy()) for column in batch.columns)
                    yield user_id, item_id, time, role[0] if role else np.zeros(0, np.uint8)
        except pa.ArrowInvalid as error:
            raise DataError(f"{file}: {_train_fault(file, names) or error}") from error
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _train_fault(file: Path, names: list[str]) -> str | None:
    for number, line in _lines(file):
        fields = line.split(",")
        if len(fields) != len(names):
            more = f"; a fourth column, the role of the click, needs {EVENTS} beside the directory"
            hint = more if number == 1 and len(fields) == len(_TRAIN_COLUMNS) + 1 else ""
            return f"line {number}: expected {','.join(names)}, found {shorten(line)}{hint}"
        for name, field in zip(names, fields, strict=True):
            if name == _ROLE and not (field.strip().isdecimal() and int(field) < 256):
                return f"line {number}: {name} is {shorten(field)}, not an integer from 0 to 255"
            if not _is_int64(field.strip()):
                return f"line {number}: {name} is {shorten(field)}, not an integer of 64 bits"
    return None


def _read_eval_file(file: Path) -> Iterator[tuple[Int64, Int64, Int64, Int64]]:
    """Yield user [1], history [H], targets [T] and roles [T or 0] of each line, int64."""
    has_roles: bool | None = None
    for number, line in _lines(file):
        match = _EVAL_LINE.fullmatch(line)
        try:
            if not match:
                raise ValueError("not an evaluation line")
            parts = (np.array(_INTEGER.findall(part), np.int64) for part in match.groups())
            user_id, history, target, role = parts
        except (ValueError, OverflowError) as error:
            raise DataError(f"{file}: line {number}: {_eval_fault(line)}") from error
        has_roles = len(role) > 0 if has_roles is None else has_roles
        if len(role) != len(target) * has_roles:
            raise DataError(
                f"{file}: line {number}: has {len(role)} roles for {len(target)} eval_item; every line has one for "
                "each, or none has any"
            )
        yield user_id, history, target, role


def _eval_fault(line: str) -> str:
    previous = ""
    for token in line.split(" "):
        name, _, value = token.partition(":")
        if previous == "eval_item" and name == _ROLE and value.isdecimal() and len(value) <= 3:
            previous = name
            continue
        if name not in _MAY_FOLLOW[previous] or not _is_int64(value):
            expected = " or ".join(f"{name}:<integer of 64 bits>" for name in _MAY_FOLLOW[previous])
            return f"expected {expected}, found {shorten(token)}"
        previous = name
    return f"expected eval_item:<integer of 64 bits> at the end, found {shorten(token)}"


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _is_int64(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _sequences(user_id: Int64, items: tuple[Int64, ...]) -> Sequences:
    offsets = np.append(0, np.cumsum([len(row) for row in items]))
    return Sequences(user_id, offsets, np.concatenate(items))
