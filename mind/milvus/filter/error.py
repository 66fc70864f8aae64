"""What is wrong with a filter, and where."""


class FilterError(Exception):
    """Ends the reading of a filter; `str()` says what is wrong."""

    def __init__(self, at: int, message: str, reason: str = "FILTER_INVALID") -> None:
        """`at`: position in the filter, from 0; `reason`: stable, for programs."""
        super().__init__(message)
        self.at = at
        self.reason = reason
