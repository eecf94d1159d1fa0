"""KFP shell of the parity stage: here, since it hands the stage the service's lookup, which no stage may import."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def parity(config: str, features: Input[Dataset], dataset: Input[Dataset], winner: Input[Model]) -> bool:
    """Compares features and scores offline with what online serving had at the time of sampled impressions."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.features.parity.stage import ParityConfig, run
    from serving.lookup import OnlineLookup

    with stage("parity") as facts:
        folders = Path(features.path), Path(dataset.path), Path(winner.path)
        facts.update(run(ParityConfig.parse(config), *folders, OnlineLookup))
    return bool(facts["passed"])
