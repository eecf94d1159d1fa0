"""The training DAG. Logic lives in `components/<stage>`; here is only who hands what to whom.

plan -> ingest -> validate -> retrieve -> encode -> [train each candidate] -> evaluate -> collect
             if promote: parity -> if online is as offline: package, materialize -> smoke_test -> if alike: promote
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.evaluation.component import evaluate
from components.evaluation.record_component import collect, finish
from components.features.component import encode, materialize, retrieve
from components.ingestion.component import ingest
from components.packaging.component import package, promote, smoke_test
from components.training.component import train
from components.validation.component import validate
from pipelines.parity import parity
from pipelines.plan import each, plan

NAME = "esmm-training"


def uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Side effects, and what reads the world outside its arguments, must happen in every run."""
    return task.set_caching_options(enable_caching=False)


def training_with(train_one: Callable[..., dsl.PipelineTask]) -> Any:
    """The DAG, with `train_one(candidate=, config=, encoded=)` making the task that ends in an output `model`.

    Here that is the component as it is; for a cluster `cluster.py` adds what to ask Kubernetes for.
    """

    @dsl.pipeline(name=NAME, description="Retrain ESMM candidates, gate the best of them, ship it only if it passes.")
    def training(data: str, recipe: str = "", overrides: str = "{}", as_of: str = "") -> None:
        """`data`: dataset folder; `recipe`: a name, or "" for its own; `overrides`: JSON; `as_of`: UTC time or ""."""
        with dsl.ExitHandler(uncached(finish())):
            todo = uncached(plan(data=data, recipe=recipe, overrides=overrides, as_of=as_of)).outputs
            raw = ingest(config=todo["ingest"]).outputs
            checked = validate(
                config=todo["validate"], impressions=raw["impressions"], features=raw["features"]
            ).outputs
            joined = retrieve(config=todo["retrieve"], clean=checked["clean"], features=raw["features"]).outputs
            encoded = encode(config=todo["encode"], dataset=joined["dataset"]).outputs
            items = uncached(each(candidates=todo["candidates"], config=todo["train"])).output
            with dsl.ParallelFor(items, parallelism=2) as item:
                trained = train_one(candidate=item.candidate, config=item.config, encoded=encoded["encoded"]).outputs
            judged = evaluate(
                config=todo["evaluate"], models=dsl.Collected(trained["model"]), dataset=joined["dataset"]
            ).outputs
            kept = uncached(
                collect(
                    evaluation=judged["evaluation"],
                    report=judged["report"],
                    docs=checked["docs"],
                    quarantine=checked["quarantine"],
                    features=raw["features"],
                    dataset=joined["dataset"],
                    winner=judged["winner"],
                )
            )
            with dsl.If(judged["Output"] == True, name="promote"):  # noqa: E712 (KFP builds the condition from ==)
                winner = judged["winner"]
                served = {"features": raw["features"], "dataset": joined["dataset"]}
                alike = uncached(parity(config=todo["parity"], winner=winner, **served).after(kept)).output
                with dsl.If(alike == True, name="online-as-offline"):  # noqa: E712
                    bento = uncached(package(config=todo["package"], winner=winner)).output
                    live = uncached(materialize(config=todo["materialize"], **served)).outputs
                    same = uncached(
                        smoke_test(config=todo["smoke_test"], bento=bento, winner=winner, expected=live["expected"])
                    ).output
                    with dsl.If(same == True, name="answers-alike"):  # noqa: E712
                        uncached(
                            promote(config=todo["promote"], bento=bento, winner=winner, evaluation=judged["evaluation"])
                        )

    return training


training = training_with(train)
