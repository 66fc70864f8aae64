"""The callback through which long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""A callback with three arguments: the stage, the number of rows done, and the total; 0 is an unknown total."""
