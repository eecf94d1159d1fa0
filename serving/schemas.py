"""Request and response of the service. A field's description is the API's documentation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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


def optional_id(value: Any) -> str | None:
    """As `canonical_id`, but null stays null."""
    return None if value is None else canonical_id(value)


Id = Annotated[str, BeforeValidator(canonical_id, json_schema_input_type=str | int)]
# Not `Id | None`: of a union, pydantic says what is wrong with each of its sides.
OptionalId = Annotated[str | None, BeforeValidator(optional_id, json_schema_input_type=str | int | None)]


class RankRequest(BaseModel):
    """Items to rank for one user."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id = Field(description="User id: a string, or an integer (taken as its decimal).")
    item_ids: Annotated[list[Id], AfterValidator(distinct)] = Field(
        description=f"1 to {MAX_ITEMS} distinct item ids: strings or integers."
    )
    group_id: OptionalId = Field(
        default=None,
        description="Which of the user's sets of features to use, for a model that keeps several (GET /info says so); "
        "without, these features are missing.",
    )
    context: dict[str, Any] = Field(
        default={},
        description="What is known of the request, by the names GET /info lists; one left out or null counts as "
        "missing. `position` is ignored: every item is scored at the model's reference position.",
    )
    item_context: dict[str, list[Any]] = Field(
        default={},
        description="What is known of each item in this request, by the names GET /info lists: a list with one value "
        "for each of item_ids, in their order; null counts as missing.",
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
    unknown_group: bool | None = Field(
        description="No group_id was sent, or nothing is stored about it; null: the model reads no features of groups."
    )
    unknown_items: list[str] = Field(description="Items nothing is stored about: scored as new ones.")
    expired_features: int = Field(
        description="Stored values taken as missing: older than their view's time to live, or too far in the future."
    )
    expired_by_view: dict[str, int] = Field(description="The same by feature view, without views that have none.")
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
    freshness: dict[str, Any] = Field(
        description="By feature view: as-of, the newest event, whether it is pushed, values found expired so far; what "
        "the item cache did; and whether the registry can be read. Empty for a model that reads no views."
    )
    features: list[str]
    context: dict[str, str] = Field(
        description="Context a request may send, and its type; strings is a list of them, floats one of weights."
    )
    item_context: dict[str, str] = Field(description="Context a request may send for each item, and its type.")
    group_id: bool = Field(description="The model reads features kept by group_id: requests should send one.")
    reference_position: int
