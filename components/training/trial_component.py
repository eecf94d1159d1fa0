"""KFP shell of a trial of the search: an import and a call."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_trial(asked: str, encoded: Input[Dataset], states: Input[Artifact], state: Output[Artifact]) -> None:
    """One trial trained up to its rung, from where it stopped; one that diverges is recorded as such."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.contracts.trial import Asked
    from components.training.trial import run

    told = Asked.parse(asked)
    with stage(f"trial-{told.trial}-rung-{told.rung}") as facts:
        facts.update(run(told, Path(encoded.path), Path(states.path), Path(state.path)).model_dump(mode="json"))
