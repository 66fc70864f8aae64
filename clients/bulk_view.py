"""What a terminal shows of a bulk run: a bar while it runs, a summary at its end."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:  # needs pyarrow
    from clients.bulk import Outcome


class _UsersPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} users/s" if task.speed else "")


@contextmanager
def user_bar(done: int, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show a progress bar on a terminal. Yield the function that gets the stage and the users who have passed it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} users"),
        _UsersPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task_id = progress.add_task("asking", completed=done, total=total)

        def report(stage: str, completed: int) -> None:
            if completed < progress.tasks[0].completed:  # joining begins with the first user again
                progress.reset(task_id)
            progress.update(task_id, description=stage, completed=completed)

        yield report


def print_outcome(outcome: "Outcome", output: Path) -> None:
    """Print users, speed, statuses, models and the file."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    earlier = outcome.users - outcome.asked
    console.print(
        f"{outcome.users:,} users{f', {earlier:,} of them earlier,' if earlier else ''} in {outcome.elapsed_s:.1f} s "
        f"({outcome.asked / outcome.elapsed_s:,.0f} users/s): {_counted(outcome.statuses)}"
    )
    console.print(f"model {_counted(outcome.model_versions)}")
    if outcome.noted:
        console.print(f"{outcome.noted:,} users have a detail, such as: {outcome.note}", style="yellow")
    if len(outcome.model_versions) > 1:
        console.print(
            "the release changed during the run: compare scores only among users of the same model_version",
            style="yellow",
        )
    console.print(f"{output}, {output.stat().st_size / 1e6:,.1f} MB")


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{name} ({number:,} users)" for name, number in names.most_common())
