"""The versions of Milvus that the tests run on, and those that cannot work. This module does not use Milvus.

No call of ours depends on the version: the answers themselves tell what differs (docs/reference/milvus-versions.md).
"""

import re
from dataclasses import dataclass

TESTED_SERVERS = ("2.3.5",)
"""The versions of Milvus Standalone that our tests run on."""
TESTED_LITE = "3.2"
"""The versions of Milvus Lite that our tests run on begin with this."""
OLDEST = (2, 3, 2)
"""The oldest Milvus that can work: 2.3.0 has no arrays, which hold lists of values and the histories of users."""


@dataclass(frozen=True)
class Fault:
    """A fault of some versions that destroys what this project stores."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    what: str
    """What goes wrong, with the issue of Milvus."""
    cure: str
    """The version that fixes it."""


FAULTS = (
    Fault(
        (2, 5, 0),
        (2, 5, 2),
        "it may find nothing by a list of text keys, as release records are read (milvus-io/milvus#39108)",
        "2.5.16",
    ),
    Fault(
        (2, 5, 14),
        (2, 5, 14),
        "it may lose a collection that was renamed, as each build does (milvus-io/milvus#43407)",
        "2.5.16",
    ),
)

_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Version:
    """The version that a Milvus reports."""

    text: str
    """What Milvus says, such as "v2.3.5" or "milvus_lite-3.2.2"."""

    @property
    def is_lite(self) -> bool:
        """Return whether it is Milvus Lite. The server of the PyPI package `milvus` is none, but says "v2.3.5-lite"."""
        return self.text.lower().startswith("milvus_lite")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the version, such as (2, 3, 5); empty if the text has none."""
        found = _NUMBERS.search(self.text)
        return tuple(int(number) for number in found.groups() if number) if found else ()

    @property
    def is_tested(self) -> bool:
        """Return whether our tests run on this version."""
        numbers = ".".join(map(str, self.numbers))
        return f"{numbers}.".startswith(f"{TESTED_LITE}.") if self.is_lite else numbers in TESTED_SERVERS

    @property
    def is_too_old(self) -> bool:
        """Return whether this version cannot work. A version that cannot be read is not too old."""
        return bool(self.numbers) and not self.is_lite and self.numbers < OLDEST

    @property
    def fault(self) -> Fault | None:
        """Return the fault of this version that destroys data; None if none is known."""
        known = () if self.is_lite else FAULTS
        return next((fault for fault in known if fault.first <= self.numbers <= fault.last), None)

    def __str__(self) -> str:
        """Return the version as people write it, such as "Milvus 2.3.5"."""
        numbers = ".".join(map(str, self.numbers)) or self.text or "of an unknown version"
        return f"Milvus Lite {numbers}" if self.is_lite else f"Milvus {numbers}"


def refusal(version: Version) -> str:
    """Say why a version cannot work, and what to do; empty if it can."""
    if not version.is_too_old:
        return ""
    return f"{version} is too old: {'.'.join(map(str, OLDEST))} or newer is needed; upgrade Milvus"


def danger(version: Version) -> str:
    """Say why nothing should be built on a version, and what to do; empty if no reason is known."""
    fault = version.fault
    return f"{version} must not be used: {fault.what}; upgrade to {fault.cure} or newer" if fault else ""


def caution(version: Version) -> str:
    """Say that a version is dangerous, or that no test of ours ran on it; empty if one did."""
    if says := danger(version):
        return says
    if version.is_tested:
        return ""
    tested = ", ".join([*(f"Milvus {each}" for each in TESTED_SERVERS), f"Milvus Lite {TESTED_LITE}"])
    return (
        f"{version} is not tested with this version of mind-recall (tested: {tested}); try `python -m indexer doctor`"
    )
