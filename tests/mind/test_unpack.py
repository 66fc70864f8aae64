"""tar.gz archives, AmazonBook's: what was asked for is read wherever it lies, and nothing else reaches the disk."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from mind.data import unpack
from mind.data.amazon_book import read_amazon_book
from mind.data.unpack import unpacked
from mind.errors import DataError

AMAZON_BOOK = {
    "book_data/book_item_map.txt": b"000100039X,1\n",
    "book_data/book_train.txt": b"0,11,0\n0,12,1\n1,13,1\n1,14,0\n",
    "book_data/book_valid.txt": b"".join(b"2,%d,%d\n" % (20 + time, time) for time in range(6)),
    "book_data/book_test.txt": b"4,31,0\n4,32,1\n3,33,0\n",
}


def make_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("folder", ["", "./", "data/"], ids=["PaddleRec", "dot", "ComiRec"])
def test_held_out_users_get_a_history_and_targets(tmp_path: Path, folder: str) -> None:
    members = {folder + name: content for name, content in AMAZON_BOOK.items()}
    parts = read_amazon_book(make_tar(tmp_path / "AmazonBook.tar.gz", members))
    assert [parts.train[user].tolist() for user in range(2)] == [[11, 12], [14, 13]]
    assert parts.valid.history[0].tolist() == [20, 21, 22, 23]  # int(0.8 * 6) = 4, as PaddleRec's preprocess.py
    assert parts.valid.target[0].tolist() == [24, 25]
    assert parts.test.history.user_id.tolist() == [3, 4]
    assert [parts.test.history[user].tolist() for user in range(2)] == [[], [31]]
    assert [parts.test.target[user].tolist() for user in range(2)] == [[33], [32]]


@pytest.mark.parametrize(
    ("member", "content", "fault"),
    [
        ("train", b"0,11\n", "book_train.txt: line 1: expected uid,item_id,time, found '0,11'"),
        ("test", b"", "book_test.txt: "),
        ("valid", None, "holds no AmazonBook: book_data/book_valid.txt is missing; expected AmazonBook.tar.gz of Padd"),
    ],
)
def test_a_fault_is_one_line_that_names_the_archive(
    tmp_path: Path, member: str, content: bytes | None, fault: str
) -> None:
    members = AMAZON_BOOK | {f"book_data/book_{member}.txt": content}
    archive = make_tar(tmp_path / "a.tar.gz", {name: data for name, data in members.items() if data is not None})
    with pytest.raises(DataError) as error:
        read_amazon_book(archive)
    assert str(error.value).startswith(f"{archive}: {fault}")
    assert "\n" not in str(error.value)


def test_nothing_but_regular_files_that_were_asked_for_is_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind in (
            ("a/one.txt", tarfile.SYMTYPE),
            ("a/two.txt", tarfile.LNKTYPE),
            ("a/six.txt", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        for name in ("../../a/three.txt", "/abs/a/four.txt", "../five.txt", "b/a/three.txt.more", "xa/seven.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    wanted = [f"a/{name}.txt" for name in ("one", "two", "three", "four", "six", "seven")]
    with unpacked(archive, wanted) as folder:
        written = {path.name: path.read_text() for path in folder.iterdir()}
        assert written == {"three.txt": "../../a/three.txt", "four.txt": "/abs/a/four.txt"}
    assert not folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar.gz", "secret"]


def test_what_is_no_whole_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", AMAZON_BOOK)
    whole = archive.read_bytes()
    padded = gzip.compress(gzip.decompress(whole) + bytes(1 << 22))  # the checksum is far behind the last member
    for content, fault in (
        (padded[:-8] + b"12345678", "cannot be unpacked: CRC check failed"),
        (whole[: len(whole) // 2], "cannot be unpacked: "),
        (whole[:-4], "cannot be unpacked: Compressed file ended before the end-of-stream marker was reached"),
        (whole[:-8] + b"12345678", "cannot be unpacked: CRC check failed"),
        (whole[:20] + b"\xff" * 40 + whole[60:], "cannot be unpacked: "),
        (b"\x1f\x8b", "cannot be unpacked: "),
    ):
        archive.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_amazon_book(archive)
        assert str(error.value).startswith(f"{archive}: {fault}")
        assert "\n" not in str(error.value)
    archive.write_bytes(whole)
    monkeypatch.setattr(unpack, "MAX_MEMBER_BYTES", 20)
    with pytest.raises(DataError, match=r"a.tar.gz: book_data/book_train.txt has 28 bytes, the limit is 20$"):
        read_amazon_book(archive)
