"""What the command line asks of the job. Knows nothing of Spark, so that the command imports it without Spark."""

from dataclasses import dataclass

from mind.data.held import Held
from mind.data.ids import IdKind
from mind.data.tables import CsvOptions
from mind.data.time_units import TimeUnit


@dataclass(frozen=True)
class Task:
    """What the command line asks for."""

    source: str
    columns: tuple[str | None, str | None, str | None]
    """The columns of users, items and times; None for a column to find."""
    options: CsvOptions
    time_unit: TimeUnit | None
    ids: IdKind
    max_malformed: float
    how: Held
    min_interactions: int
    max_user_share: float
    since: str | None
    once_per: str | None
