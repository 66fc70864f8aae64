"""What all bodies of requests share: lists end at their first mistake, and unknown fields are refused.

A mistake costs far more than an item: a list of 200,000 of them would keep the gateway busy for seconds.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from clients.gateway.ids import GivenItemId

MAX_USERS = 4_096
"""Maximum number of users or queries in one request. The limit of the server is lower: 256 unless told otherwise."""
MAX_FIELDS = 100
"""Maximum number of fields of an object."""


class Body(BaseModel):
    """An object of a request."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
            raise ValueError(f"has {len(fields)} fields, the limit is {MAX_FIELDS}")
        return fields


def _few(what: str) -> WrapValidator:
    def few(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(given, list) and len(given) > MAX_USERS:
            raise ValueError(f"has {len(given)} {what}, the limit is {MAX_USERS}")
        return validate(given)

    return WrapValidator(few)


FewUsers, FewQueries = _few("users"), _few("queries")
"""Refuses a list of too many users, or queries, before it looks at one of them."""
GivenItemIds = Annotated[list[GivenItemId], Field(fail_fast=True)]
"""The ids of items. The size of the body limits their number, and the recall server that of one history."""
