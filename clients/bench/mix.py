"""The kinds of requests of a load test, from a YAML file or from options, checked against the server's limits."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from protos.recall.v1 import recall_pb2


class MixError(ValueError):
    """Requests that cannot be sent. The message names the field, the value and the limit."""


def _lengths(given: Any) -> Any:
    """Read 20 as (20, 20) and 1-20 as (1, 20)."""
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", str(given)) if isinstance(given, int | str) else None
    lengths = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if lengths[0] > lengths[1]:
        raise ValueError("must be a number of items such as 20, or a range such as 1-20")
    return lengths


class Shape(BaseModel):
    """One kind of request."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = ""
    """Its name in the results; empty describes it."""
    weight: float = Field(default=1, gt=0, allow_inf_nan=False)
    """How often it is sent, in proportion to the weights of the others."""
    users: int = Field(default=1, ge=1)
    """Users per request."""
    top_k: int = Field(default=50, ge=1)
    filter: str = ""
    exclude_history: bool = False
    history: Annotated[tuple[int, int], BeforeValidator(_lengths)] | None = None
    """Least and most of the newest items of a history that are sent, all numbers equally likely. None sends all items.
    """
    merge: Literal["best-score", "round-robin"] = "best-score"
    channel: str = ""
    """The channel whose release answers; empty is the default channel of the server."""

    def title(self) -> str:
        """Its name, or its options that are not the default."""
        if self.name:
            return self.name
        words = [f"top {self.top_k}"] + [f"{self.users} users"] * (self.users > 1)
        if self.history:
            low, high = self.history
            words.append(f"history {low}" if low == high else f"history {low}-{high}")
        words += ["exclude_history"] * self.exclude_history + ["round-robin"] * (self.merge == "round-robin")
        words += [f"channel {self.channel}"] * bool(self.channel)
        return ", ".join([*words, self.filter] if self.filter else words)


def shape_of(fields: dict[str, Any]) -> Shape:
    """Return the one shape that options describe. Raises MixError."""
    try:
        return Shape.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise MixError(_says(f"--{str(fault['loc'][0]).replace('_', '-')}", fault)) from None


def read_mix(path: Path, otherwise: Shape) -> list[Shape]:
    """Read the shapes of a YAML file, `requests: [{weight: 3, top_k: 50}, {filter: "year > 1990"}]`.

    Args:
        path: the file.
        otherwise: has the values of the fields that a shape of the file leaves out.

    Raises:
        MixError: it is no such file. The message names the field, the value and the limit.
    """
    import yaml  # of an extra of its own

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MixError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or list(content) != ["requests"]:
        raise MixError(f"{path}: must have only the key `requests`, a list of request shapes")
    given = content["requests"]
    if not isinstance(given, list) or not given:
        raise MixError(f"{path}: requests is {given!r}, must be a list of at least one request shape")
    defaults = otherwise.model_dump(exclude={"name", "weight", "history"}) | {"history": _text(otherwise.history)}
    return [_read_shape(f"{path}: requests[{number}]", each, defaults) for number, each in enumerate(given)]


def _read_shape(place: str, given: Any, defaults: dict[str, Any]) -> Shape:
    if not isinstance(given, dict):
        raise MixError(f"{place} is {given!r}, must have fields such as top_k: 50")
    try:
        return Shape.model_validate(defaults | given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise MixError(_says(f"{place}.{fault['loc'][0]}", fault)) from None


def with_lengths(shapes: Sequence[Shape], maxlen: int) -> list[Shape]:
    """Return shapes that all have a history length: 1 to `maxlen` items if a shape has none."""
    return [shape if shape.history else shape.model_copy(update={"history": (1, maxlen)}) for shape in shapes]


def _text(lengths: tuple[int, int] | None) -> str | None:
    return f"{lengths[0]}-{lengths[1]}" if lengths else None


def _says(field: str, fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][0]), Shape.model_fields, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(Shape.model_fields)}"
        return f"{field}: unknown field; {meant}"
    return f"{field} is {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"


def check(shapes: Sequence[Shape], limits: recall_pb2.Limits) -> None:
    """Check shapes against the limits of a server. Raises MixError for the first that exceeds one."""
    for shape in shapes:
        asked = {
            "users": (shape.users, "max_users"),
            "top_k": (shape.top_k, "max_top_k"),
            "users times top_k": (shape.users * shape.top_k, "max_candidates"),
            "history": (shape.history[1] if shape.history else 0, "max_history"),
            "the length of filter": (len(shape.filter), "max_filter_chars"),
        }
        for field, (value, name) in asked.items():
            limit = getattr(limits, name)
            if limit and value > limit:  # a server that is older than a limit sends 0
                raise MixError(f"request {shape.title()!r}: {field} is {value:,}, the server's {name} is {limit:,}")
