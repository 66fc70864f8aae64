"""MovieLens-100K: both archives read alike, downloads are checked, and without a network the user is told what to do.

The archives here are tiny ones with the layout of the real ones; nothing leaves the machine.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mind.errors import DataError
from mind.movielens import Source, download_url, download_with_pip, fetch, read_archive

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
WHEEL = "recbole-1.2.1-py3-none-any.whl"


def make_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def digest(path: Path, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, path.read_bytes()).hexdigest()}"


@pytest.fixture
def grouplens(tmp_path: Path) -> Source:
    """A source whose URL is a file on disk."""
    archive = make_archive(tmp_path / "served.zip", GROUPLENS)
    return Source("ml-100k.zip", digest(archive, "md5"), archive.as_uri(), download_url)


def refuse(source: Source, directory: Path) -> None:
    raise OSError("no network")


@pytest.mark.parametrize("members", [GROUPLENS, RECBOLE], ids=["grouplens", "recbole"])
def test_both_archives_give_the_same(tmp_path: Path, members: Mapping[str, bytes]) -> None:
    data = read_archive(make_archive(tmp_path / "archive.zip", members))
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


def test_a_download_is_kept_and_used_again(tmp_path: Path, grouplens: Source) -> None:
    cache = tmp_path / "downloads"
    archive = fetch(cache, [grouplens])
    assert archive == cache / "ml-100k.zip"
    assert len(read_archive(archive).interactions) == 3
    assert fetch(cache, [replace(grouplens, download=refuse)]) == archive
    assert list(cache.iterdir()) == [archive]


def test_a_damaged_copy_is_downloaded_again(
    tmp_path: Path, grouplens: Source, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "ml-100k.zip"
    damaged.write_bytes(b"cut short")
    assert fetch(tmp_path, [grouplens]) == damaged
    assert len(read_archive(damaged).interactions) == 3
    assert "ml-100k.zip is damaged" in caplog.text


def test_the_next_source_is_tried(tmp_path: Path, grouplens: Source) -> None:
    broken = Source(WHEEL, "sha256:00", "recbole==1.2.1", refuse)
    assert fetch(tmp_path, [broken, grouplens]).name == "ml-100k.zip"


def test_a_wheel_comes_through_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = make_archive(index / WHEEL, RECBOLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    source = Source(WHEEL, digest(wheel, "sha256"), "recbole==1.2.1", download_with_pip)
    assert len(read_archive(fetch(tmp_path / "cache", [source])).interactions) == 3
    with pytest.raises(DataError, match=r"recbole-1.2.1-py3-none-any.whl from recbole==1.2.1: .*(HASH|hash)"):
        fetch(tmp_path / "other", [replace(source, digest="sha256:" + "0" * 64)])


def test_without_a_network_the_user_is_told_what_to_do(tmp_path: Path, grouplens: Source) -> None:
    cache = tmp_path / "downloads"
    wheel = Source(WHEEL, "sha256:00", "recbole==1.2.1", refuse)
    wrong = replace(grouplens, digest="md5:00")
    with pytest.raises(DataError) as error:
        fetch(cache, [wheel, wrong])
    assert str(error.value).splitlines() == [
        f"movielens-100k: not in {cache} and cannot be downloaded; put one of these files there by hand:",
        f"  {WHEEL} from recbole==1.2.1: no network",
        f"  ml-100k.zip from {grouplens.location}: what came is not the file with md5:00",
    ]
    assert list(cache.iterdir()) == []


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other.zip: holds no MovieLens-100K; expected recbole-.*whl or ml-100k.zip"):
        read_archive(make_archive(tmp_path / "other.zip", {"ml-1m/ratings.dat": b"1::2::3::4"}))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataError, match=r"text.zip: cannot be read: File is not a zip file"):
        read_archive(tmp_path / "text.zip")
