"""MovieLens: all archives of a data set read alike, and what is none is refused in one line.

The archives here are tiny ones with the layout of the real ones.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from mind.data import unpack
from mind.data.movielens import read_movielens_1m, read_movielens_100k
from mind.errors import DataError

GROUPLENS = {
    "ml-100k/u.data": b"196\t242\t3\t881250949\n186\t1\t3\t891717742\n196\t1\t1\t881250948\n",
    "ml-100k/u.item": (
        b"242|Mis\xe9rables, Les (1995)|01-Jan-1995||http://imdb|0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0\n"
        b"267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        b"1|Toy Story (1995)|01-Jan-1995||http://imdb|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        b"1412|Land Before Time III (1995) (V)|01-Jan-1995||http://imdb|0|0|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    ),
}
RECBOLE = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        b"196\t242\t3\t881250949\n186\t1\t3\t891717742\n196\t1\t1\t881250948\n"
    ),
    "recbole/dataset_example/ml-100k/ml-100k.item": (
        b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        b"242\tMis\xc3\xa9rables, Les\t1995\tDrama Musical\n"
        b"267\tunkonwn\tunkonwn\tunknown\n"
        b"1\tToy Story\t1995\tAnimation Children's Comedy\n"
        b"1412\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    ),
    "recbole-1.2.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n",
    "recbole-1.2.1.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "recbole-1.2.1.dist-info/RECORD": b"",
}
ML_1M = {
    "ml-1m/README": b"SUMMARY",
    "ml-1m/ratings.dat": b"196::242::3::881250949\n186::1::3::891717742\n196::1::1::881250948\n",
    "ml-1m/movies.dat": (
        b"242::Mis\xe9rables, Les (1995)::Drama|Musical\n"
        b"1::Toy Story (1995)::Animation|Children's|Comedy\n"
        b'1412::"Star Wars: Episode IV" (1977)::Sci-Fi\n'
        b"267::unknown::Drama\n"
    ),
    "ml-1m/users.dat": b"1::F::1::10::48067\n",
}
WHEEL = "recbole-1.2.1-py3-none-any.whl"


def make_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("members", [GROUPLENS, RECBOLE], ids=["grouplens", "recbole"])
def test_both_archives_of_100k_give_the_same(tmp_path: Path, members: Mapping[str, bytes]) -> None:
    data = read_movielens_100k(make_archive(tmp_path / "archive.zip", members))
    assert data.interactions.user_id.tolist() == [186, 196, 196]
    assert data.interactions.item_id.tolist() == [1, 1, 242]
    assert data.report.unsorted.count == 1
    assert data.items.to_pylist() == [
        {"item_id": 1, "title": "Toy Story", "year": 1995, "genres": ["Animation", "Children's", "Comedy"]},
        {"item_id": 242, "title": "Misérables, Les", "year": 1995, "genres": ["Drama", "Musical"]},
        {"item_id": 267, "title": "unknown", "year": None, "genres": ["unknown"]},
        {"item_id": 1412, "title": "Land Before Time III", "year": 1995, "genres": ["Animation", "Children's"]},
    ]
    assert [str(field.type) for field in data.items.schema] == ["int64", "string", "int64", "list<item: string>"]


def test_1m_has_the_columns_of_100k(tmp_path: Path) -> None:
    data = read_movielens_1m(make_archive(tmp_path / "ml-1m.zip", ML_1M))
    assert data.interactions.user_id.tolist() == [186, 196, 196]
    assert data.interactions.item_id.tolist() == [1, 1, 242]
    assert data.interactions.timestamp.tolist() == [891717742, 881250948, 881250949]
    assert data.items.to_pylist() == [
        {"item_id": 1, "title": "Toy Story", "year": 1995, "genres": ["Animation", "Children's", "Comedy"]},
        {"item_id": 242, "title": "Misérables, Les", "year": 1995, "genres": ["Drama", "Musical"]},
        {"item_id": 267, "title": "unknown", "year": None, "genres": ["Drama"]},
        {"item_id": 1412, "title": '"Star Wars: Episode IV"', "year": 1977, "genres": ["Sci-Fi"]},
    ]
    small = read_movielens_100k(make_archive(tmp_path / "ml-100k.zip", GROUPLENS))
    assert data.items.schema == small.items.schema


def test_another_archive_is_refused(tmp_path: Path) -> None:
    large, small = make_archive(tmp_path / "ml-1m.zip", ML_1M), make_archive(tmp_path / "ml-100k.zip", GROUPLENS)
    with pytest.raises(DataError, match=r"ml-1m.zip: holds no MovieLens-100K; expected recbole-.*whl or ml-100k.zip"):
        read_movielens_100k(large)
    with pytest.raises(DataError, match=r"ml-100k.zip: holds no MovieLens-1M; expected ml-1m.zip"):
        read_movielens_1m(small)


@pytest.mark.parametrize(
    ("member", "content", "fault"),
    [
        (
            "movies.dat",
            b"1::Toy Story (1995)::Comedy\n2::Jumanji (1995)\n",
            "movies.dat: line 2: expected 3 columns, f",
        ),
        ("movies.dat", b"one::Toy Story (1995)::Comedy\n", "cannot be read: Failed to parse string: 'one'"),
        ("movies.dat", b"", "movies.dat: line 1: expected 3 columns, found 1: ''"),
        ("ratings.dat", b"1::2::3::now\n", "ratings.dat: 1 of 1 rows are unusable (100.0%), the limit is 1.0%; line 1"),
        ("ratings.dat", b"", "ratings.dat: the file is empty"),
    ],
)
def test_a_fault_is_one_line_that_names_the_archive(tmp_path: Path, member: str, content: bytes, fault: str) -> None:
    archive = make_archive(tmp_path / "ml-1m.zip", ML_1M | {f"ml-1m/{member}": content})
    with pytest.raises(DataError) as error:
        read_movielens_1m(archive)
    assert str(error.value).startswith(f"{archive}: {fault}")
    assert "\n" not in str(error.value)


def test_what_is_no_whole_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_archive(tmp_path / "ml-1m.zip", ML_1M)
    whole = archive.read_bytes()
    for content, fault in (
        (b"text", "is neither a zip nor a tar.gz archive"),
        (b"", "is neither a zip nor a tar.gz archive"),
        (whole[:-30], "cannot be unpacked: File is not a zip file"),
        (whole.replace(b"Toy Story", b"Joy Story"), "cannot be unpacked: Bad CRC-32 for file 'ml-1m/movies.dat'"),
    ):
        archive.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_movielens_1m(archive)
        assert str(error.value) == f"{archive}: {fault}"
    archive.write_bytes(whole)
    monkeypatch.setattr(unpack, "MAX_MEMBER_BYTES", 60)
    with pytest.raises(DataError, match=r"ml-1m.zip: ml-1m/ratings.dat has 65 bytes, the limit is 60$"):
        read_movielens_1m(archive)
