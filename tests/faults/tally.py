"""What calls met, counted by kind: the closing table of a drill about callers."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
SHOWN = 5
"""Problems of a kind that are printed in full."""


@dataclass
class Tally:
    """Calls by kind and outcome. `failed`: no call may end so; `wrong`: an answer that is not right; `late`: none."""

    calls: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, outcome: str, problem: str = "", says: str = "") -> None:
        """Count a call.

        Args:
            kind: row of the table.
            outcome: such as a status's name.
            problem: "failed", "wrong" or "late"; empty if all is well.
            says: what to print about a problem.
        """
        self.calls[kind] += 1
        self.outcomes.setdefault(kind, Counter())[outcome] += 1
        if problem:
            self.problems[kind, problem] += 1
            if self.problems[kind, problem] <= SHOWN:
                console.print(f"{problem}: {kind}: {says}", markup=False, soft_wrap=True)

    @property
    def clean(self) -> bool:
        """Whether nothing failed, was wrong or late."""
        return not self.problems

    def table(self, title: str) -> Table:
        """All of it."""
        table = Table(title=title)
        table.add_column("calls of")
        for heading in ("calls", "failed", "wrong", "late"):
            table.add_column(heading, justify="right")
        table.add_column("outcomes")
        for kind, calls in self.calls.items():
            counts = [str(self.problems[kind, problem]) for problem in ("failed", "wrong", "late")]
            outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes[kind].most_common())
            table.add_row(kind, f"{calls:,}", *counts, outcomes)
        return table
