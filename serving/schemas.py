"""Request and response of the service. A field's description is the API's documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from components.contracts.columns import POSITION
from components.contracts.spec import FeatureSpec
from serving.settings import MAX_ITEMS


def canonical_id(value: Any) -> str:
    """An id as the log writes it: text, or an integer in canonical decimal.

    Raises:
        ValueError: for a float, a boolean, null or empty text (`12.0` is not an id).
    """
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"an id is a non-empty string or an integer, not {value!r}")


def distinct(ids: list[str]) -> list[str]:
    """Raises ValueError for an empty or too long list, and for an id sent twice."""
    if not ids:
        raise ValueError("item_ids is empty: send at least one item to rank")
    if len(ids) > MAX_ITEMS:
        raise ValueError(f"{len(ids)} items are more than the {MAX_ITEMS} a request may hold: split it")
    if len(set(ids)) < len(ids):
        twice = next(item for number, item in enumerate(ids) if item in ids[:number])
        raise ValueError(f"item {twice!r} is in item_ids twice: send each item once")
    return ids


Id = Annotated[str, BeforeValidator(canonical_id, json_schema_input_type=str | int)]


class RankRequest(BaseModel):
    """Items to rank for one user."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id = Field(description="User id: a string, or an integer (taken as its decimal).")
    item_ids: Annotated[list[Id], AfterValidator(distinct)] = Field(
        description=f"1 to {MAX_ITEMS} distinct item ids: strings or integers."
    )
    context: dict[str, Any] = Field(
        default={},
        description="What is known of the request, by the names GET /info lists; one left out or null counts as "
        "missing. `position` is ignored: every item is scored at the model's reference position.",
    )


class RankedItem(BaseModel):
    """Probabilities of one item for this user: P(click), P(conversion | click), and their product."""

    item_id: str
    pctr: float
    pcvr: float
    pctcvr: float


class RankResponse(BaseModel):
    """Items by falling pctcvr, ties by item_id."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(description="Tag of the Bento that answered.")
    run: str = Field(description="Pipeline run that trained the model.")
    user_id: str
    unknown_user: bool = Field(description="Nothing is stored about the user: scored as a new one.")
    unknown_items: list[str] = Field(description="Items nothing is stored about: scored as new ones.")
    expired_features: int = Field(description="Stored values older than their view's time to live, taken as missing.")
    items: list[RankedItem]


class InfoResponse(BaseModel):
    """What is being served."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    run: str
    candidate: str
    dataset: str
    as_of: str = Field(description="The model's data ends before this time (UTC).")
    materialized_as_of: str | None = Field(description="As-of of the online features; null: the model has none.")
    features: list[str]
    context: dict[str, str] = Field(description="Context a request may send, and its type.")
    reference_position: int


class BadContext(ValueError):
    """The context does not fit the model's spec; the message is for the caller."""


TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def context_values(spec: FeatureSpec, sent: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each of the model's context columns but position; None where it was not sent.

    Raises:
        BadContext: an unknown name, or a value of another type than the spec's.
    """
    known = {feature.name: feature.dtype for feature in spec.context if feature.name != POSITION}
    unknown = sorted(set(sent) - set(known) - {POSITION})
    if unknown:
        raise BadContext(
            f"context has unknown {', '.join(map(repr, unknown))}: this model knows "
            f"{', '.join(sorted(known)) if known else 'no context'}"
        )
    return {name: _value(name, dtype, sent.get(name)) for name, dtype in known.items()}


def _value(name: str, dtype: str, value: Any) -> Any:
    if value is None:
        return None
    # bool is an int to Python, but not to the log.
    fits = isinstance(value, TYPES[dtype]) and (dtype == "bool" or not isinstance(value, bool))
    # Neither NaN nor an integer beyond 64 bits is a value that a log can hold.
    if fits and isinstance(value, (int, float)):
        fits = math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
    if not fits:
        raise BadContext(f"context {name!r} = {value!r} is no {dtype}: send {dtype}, or null if it is not known")
    return float(value) if dtype == "float" else value
