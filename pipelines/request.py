"""What a run is asked to do, checked before anything starts. Needs no Feast, so the command can afford it."""

from __future__ import annotations

from pathlib import Path

from components.contracts import dataset as ds
from components.contracts.errors import UsageError
from components.contracts.times import format_utc, parse_utc
from components.ingestion.ingest import default_as_of, first_event
from components.validation import profile
from pipelines import recipes


def request_of(data: Path, recipe_name: str, overrides: str, as_of: str) -> tuple[ds.DatasetInfo, recipes.Recipe, str]:
    """Dataset, recipe and as-of (ISO-8601) of a run. The command asks before it starts one, so that a typo costs none.

    Raises:
        DataError: no dataset at `data`.
        UsageError: unknown recipe or key, a value of the wrong type; a reference that is no profile of this dataset;
            an as-of that is no time, or not after the data begins.
    """
    info = ds.read_info(data)
    recipe = recipes.load(recipe_name or info.recipe, overrides)
    reference_of(recipe, info)
    if not as_of:
        return info, recipe, default_as_of(data)
    until, begins = parse_utc(as_of, "as-of"), first_event(data)
    if until <= begins:
        raise UsageError(
            f"as-of {format_utc(until)} is not after the first logged event, {format_utc(begins)}: "
            "choose a later --as-of, or leave it out for the whole log"
        )
    return info, recipe, format_utc(until)


def reference_of(recipe: recipes.Recipe, info: ds.DatasetInfo) -> profile.Profile | None:
    """The profile that drift is judged against; None if the recipe names none.

    Raises:
        UsageError: the file cannot be read, is no profile, or is one of another dataset.
    """
    if not recipe.reference:
        return None
    reference = profile.load(Path(recipe.reference))
    if reference.dataset != info.name:
        raise UsageError(
            f"{recipe.reference} is the profile of dataset {reference.dataset!r}, and the run is on {info.name!r}: "
            "give the reference of this dataset, or make one with `esmm profile accept`"
        )
    return reference
