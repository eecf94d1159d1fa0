"""The search DAG, in rounds. Logic lives in `components/<stage>`; here is only who hands what to whom.

plan -> ingest -> validate -> retrieve -> encode (each reused from the cache if a run has made it)
     -> a fixed number of rounds: suggest -> [train each trial up to its rung] -> tell
     -> choose
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.evaluation.record_component import finish
from components.features.component import encode, retrieve
from components.ingestion.component import ingest
from components.search.component import begin, choose, suggest, tell
from components.training.trial_component import train_trial
from components.validation.component import validate
from pipelines.plan import plan_sweep
from pipelines.training import uncached

NAME = "esmm-sweep"


def sweep_with(rounds: int, train_one: Callable[..., dsl.PipelineTask] = train_trial) -> Any:
    """The DAG of so many rounds, with `train_one(asked=, encoded=, states=)` making the task that ends in `state`.

    A loop over rounds in KFP itself could not hand the study of one on to the next.
    """

    @dsl.pipeline(name=NAME, description="Search for a better training config: suggest, train, tell, in rounds.")
    def sweep(data: str, recipe: str = "", overrides: str = "{}", as_of: str = "") -> None:
        """`data`: dataset folder; `recipe`: a name, or "" for its own; `overrides`: JSON; `as_of`: UTC time or ""."""
        with dsl.ExitHandler(uncached(finish())):
            todo = uncached(
                plan_sweep(data=data, recipe=recipe, overrides=overrides, as_of=as_of, rounds=rounds)
            ).outputs
            raw = ingest(config=todo["ingest"]).outputs
            clean = validate(config=todo["validate"], impressions=raw["impressions"], features=raw["features"]).outputs
            joined = retrieve(config=todo["retrieve"], clean=clean["clean"], features=raw["features"]).outputs
            encoded = encode(config=todo["encode"], dataset=joined["dataset"]).outputs["encoded"]
            begun = begin(config=todo["search"]).outputs
            study, states = begun["study"], begun["states"]
            for number in range(rounds):
                asked = suggest(config=todo["search"], number=number, study=study).output
                with dsl.ParallelFor(asked, parallelism=2) as item:
                    trained = train_one(asked=item.asked, encoded=encoded, states=states).outputs
                told = tell(
                    config=todo["search"],
                    number=number,
                    asked=asked,
                    reached=dsl.Collected(trained["state"]),
                    study=study,
                    states=states,
                ).outputs
                study, states = told["told"], told["kept"]
            uncached(choose(config=todo["choose"], study=study))

    return sweep
