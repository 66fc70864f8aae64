"""Random CSV and Parquet files as shops export them: quotes, empty cells, zeros, encodings, blank and ragged lines."""

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [
    "Heroes",
    "Größe 42",
    "日本語",
    '7" vinyl',
    '"',
    'say "hi"',
    "a,b",
    "x;y|z\t",
    "",
    " ",
    "NULL",
    "0",
    "007",
    "1.5",
    "a:b",
    ":",
]
LINES = [
    "first\nsecond",
    "one\n\nthree",
    "a,b\nc",
    "1,2\n3",
    "x\n5,6,7,8\n",
    "7\t8\n9;10\n",
    "tail\n",
    "\n",
    'in "it"\n.',
]
IDS = ["1", "2", "3", "17", "230", "-4", "0", str(2**63 - 1), str(-(2**63))]
BAD_IDS = ["x", "1.5", "", " ", "NULL", "nan", str(2**63), "1e3", "--1", "٣", "0x1"]
TIME = 1_559_969_382
KINDS = ["view"] * 6 + ["buy"] * 4 + ["return"] * 3 + ["hover", " buy ", "Buy", ""]
RATINGS = ["5", "4"] * 4 + ["4.0", "3.5", "3", "1", "1e1", "-2", " 5 ", "good", "nan", ""]


@dataclass(frozen=True)
class CsvFile:
    """A CSV file and how it is to be read."""

    content: bytes
    names: list[str]
    header: bool
    delimiter: str
    quote: str


def random_csv(rng: random.Random, key: str, others: list[str], delimiters: list[str]) -> CsvFile:
    """A CSV file with columns in any order."""
    names = [key, *others]
    rng.shuffle(names)
    delimiter, quote = rng.choice(delimiters), rng.choice(["auto", "auto", "auto", "always", "none"])
    header = rng.random() < 0.8
    is_clean = rng.random() < 0.5
    lines = [delimiter.join(names)] if header else []
    padding = rng.random() < 0.1
    for number in range(rng.randint(1, 30)):
        cells = [_cell(rng, name, number, key, delimiter, quote, is_clean, padding) for name in names]
        fault = 1.0 if is_clean else rng.random()
        if fault < 0.03:
            cells = cells[: rng.randint(1, len(cells))] if rng.random() < 0.5 else [*cells, "more"]
        elif fault < 0.06:
            cells[names.index("note")] = '"stray' if rng.random() < 0.7 else 'stray"'
        lines.append(delimiter.join(cells))
        if rng.random() < 0.08:
            lines.append(rng.choice(["", "", "  ", "\t"]))
    end = rng.choice(["\n", "\n", "\n", "\r\n", "\r"])
    text = end.join(lines) + rng.choice(["", end, end + end])
    if rng.random() < 0.1:
        text = text.replace(end, rng.choice(["\n", "\r\n"]), rng.randint(1, 9))
    content = text.encode(rng.choice(["utf-8"] * 12 + ["utf-8-sig"] * 4 + ["utf-16", "utf-8"]))
    if rng.random() < 0.03:
        content = text.encode("latin-1", errors="replace")
    return CsvFile(content, names, header, delimiter, quote)


def _cell(
    rng: random.Random, name: str, number: int, key: str, delimiter: str, quote: str, is_clean: bool, padding: bool
) -> str:
    if name == "note":
        text = rng.choice(LINES) if rng.random() < 0.1 else rng.choice(WORDS)
        if quote == "none":
            return text.replace("\n", " ").replace(delimiter, " ")
        needs = any(mark in text for mark in f'"\n\r{delimiter}') or rng.random() < 0.2
        return '"' + text.replace('"', '""') + '"' if needs else text
    if name in ("kind", "rating"):
        return rng.choice(KINDS if name == "kind" else RATINGS)
    if name == "timestamp":
        text = str(TIME + rng.randint(0, 99) if rng.random() < 0.97 else rng.choice([0, 5]))
        if not is_clean and rng.random() < 0.01:
            text += "000"
    elif name == "item_id" and key == "item_id":
        text = str(1000 + number if rng.random() < 0.995 else 1000)
    else:
        text = rng.choice(IDS)
    if name != key and not is_clean and rng.random() < 0.05:
        text = rng.choice(BAD_IDS)
    if padding and text.isdecimal() and rng.random() < 0.5:
        text = "0" + text
    if quote != "none" and rng.random() < 0.1:
        text = f'"{text}"'
    return text if is_clean or key == "item_id" or rng.random() < 0.95 else f" {text} "


def write_csv(rng: random.Random, path: Path, file: CsvFile) -> Path:
    """Write the file, some of them compressed, and tell where it is."""
    if rng.random() < 0.1:
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(file.content))
    else:
        path.write_bytes(file.content)
    return path


def write_json_lines(rng: random.Random, path: Path, event: str = "") -> Path:
    """Write clicks as JSON lines, some of them compressed: half of the files with lines that are all alike.

    `event`: a column of kinds, kind or rating; none if empty.
    """
    is_alike, has_text = rng.random() < 0.5, rng.random() < 0.5
    lines = []
    for _ in range(rng.randint(1, 30) + (15 if event else 0)):
        cells: dict[str, Any] = {
            "user_id": rng.choice(IDS) if is_alike else _json_id(rng),
            "item_id": json.dumps(f"KIT-{rng.randint(0, 9)}") if has_text else rng.choice(IDS),
            "timestamp": str(TIME + rng.randint(0, 99)),
            "note": json.dumps(rng.choice(WORDS + LINES), ensure_ascii=rng.random() < 0.5),
        }
        if event == "kind":
            cells[event] = json.dumps(rng.choice(KINDS))
        elif event:
            cells[event] = rng.choice(["5", "4", "3.5", "1", "-2", '"4"', '"1.5"', "null"])
        if not is_alike:
            for name in list(cells):
                if rng.random() < 0.03:
                    cells[name] = _json_id(rng)
                if rng.random() < 0.03:
                    del cells[name]
        pairs = [f'"{name}": {text}' for name, text in cells.items()]
        rng.shuffle(pairs)
        line = "{" + ", ".join(pairs) + "}"
        if not is_alike:
            line = _spoilt(rng, line)
        lines.append(line)
    end = rng.choice(["\n", "\n", "\n", "\r\n", "\r"])
    content = (end.join(lines) + rng.choice(["", end, end + end])).encode(rng.choice(["utf-8"] * 9 + ["utf-8-sig"]))
    if rng.random() < 0.1:
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    return path


def _json_id(rng: random.Random) -> str:
    odd = [
        "null",
        "true",
        "1.5",
        "2.0",
        "1e3",
        "-0",
        "NaN",
        "[1]",
        '{"a": 1}',
        '"\\ud800"',
        '""',
        '" 7 "',
        '"007"',
        '"x"',
    ]
    text = rng.choice(IDS)
    return text if rng.random() < 0.7 else f'"{text}"' if rng.random() < 0.7 else rng.choice([*odd, str(2**63)])


def _spoilt(rng: random.Random, line: str) -> str:
    if rng.random() < 0.9:
        return line
    return rng.choice(["", "  ", f" {line}\t", line[:-1], line + line, f"[{line}]", line.replace(": ", ":\n", 1), "7"])


def write_parquet(rng: random.Random, path: Path, event: str = "") -> list[tuple[Any, ...]]:
    """Write clicks as a Parquet file, or as a directory of them whose folders name the users; the rows in order.

    `event`: a column of kinds, kind or rating; none if empty.
    """
    rows = rng.randint(1, 30)
    columns = [_values(rng, rows, kind) for kind in ("user", "item", "time")]
    names = ["user_id", "item_id", "timestamp"]
    if event:
        columns.append(_kinds(rng, rows, event))
        names.append(event)
    if rng.random() < 0.7:
        pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, row_group_size=rng.randint(1, 40))
        return list(zip(*(column.to_pylist() for column in columns), strict=True))
    users = sorted(rng.sample(["1", "2", "30", "4", "05"], rng.randint(1, 3)), key=lambda user: f"user_id={user}")
    found = []
    for user in users:
        (path / f"user_id={user}").mkdir(parents=True)
        table = pa.table(dict(zip(names[1:], columns[1:], strict=True)))
        pq.write_table(table, path / f"user_id={user}" / "part-0.snappy.parquet")
        found += [(user, *row) for row in zip(*(column.to_pylist() for column in columns[1:]), strict=True)]
    (path / "_SUCCESS").touch()
    return found


def _kinds(rng: random.Random, rows: int, event: str) -> pa.Array:
    form = rng.choice(["string", "dictionary"] if event == "kind" else ["string", "int32", "float32", "float64"])
    if form in ("string", "dictionary"):
        values = pa.array([rng.choice(KINDS if event == "kind" else RATINGS) for _ in range(rows)], pa.string())
        return values.dictionary_encode() if form == "dictionary" else values
    numbers: list[Any] = [rng.choice([5, 4, 3, 1, -2, None]) for _ in range(rows)]
    if form != "int32":
        numbers = [
            float("nan") if one is None and rng.random() < 0.5 else one and one + rng.choice([0, 0.5])
            for one in numbers
        ]
    return pa.array(numbers, pa.type_for_alias(form.replace("float32", "float").replace("float64", "double")))


def _values(rng: random.Random, rows: int, kind: str) -> pa.Array:
    lowest, highest = (TIME, TIME + 50) if kind == "time" else (-3, 40)
    values: list[Any] = [rng.randint(lowest, highest) for _ in range(rows)]
    form = rng.choice(["int64", "int64", "int32", "uint64", "float64", "string", "dictionary"])
    if form == "uint64":
        values = [abs(value) for value in values]
    if form in ("string", "dictionary"):
        values = [str(value) for value in values]
        if rng.random() < 0.3:
            values[rng.randrange(rows)] = rng.choice(BAD_IDS if kind != "time" else ["x", " "])
        if rng.random() < 0.1:
            values[rng.randrange(rows)] = "007"
    if form == "float64":
        values = [float(value) for value in values]
        if rng.random() < 0.3 and kind != "time":
            values[rng.randrange(rows)] = rng.choice([float("nan"), 1.5])
    if rng.random() < 0.3:
        values[rng.randrange(rows)] = None
    if form == "dictionary":
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, pa.type_for_alias(form))
