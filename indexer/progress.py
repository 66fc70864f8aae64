"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the stage, the rows that are done, and the rows in all; 0 where that is not known."""
