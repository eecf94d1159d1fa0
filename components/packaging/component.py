"""KFP shells of the packaging stages."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(config: str, winner: Input[Model]) -> str:
    """Builds a Bento from the winner; returns its tag."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.packaging.bento import PackageConfig, run

    with stage("package") as facts:
        facts.update(run(PackageConfig.parse(config), Path(winner.path)))
    return str(facts["bento"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def smoke_test(config: str, bento: str, winner: Input[Model], expected: Input[Dataset]) -> bool:
    """Starts the Bento away from the project and compares its answers with the model's offline scores."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.packaging.smoke_test import SmokeTestConfig, run

    with stage("smoke_test") as facts:
        facts.update(run(SmokeTestConfig.parse(config), bento, Path(winner.path), Path(expected.path)))
    return bool(facts["passed"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(config: str, bento: str, winner: Input[Model], evaluation: Input[Dataset]) -> int:
    """Makes the winner champion, if the champion is still the one it was compared with; returns the version."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.packaging.promote import PromoteConfig, run

    with stage("promote") as facts:
        facts.update(run(PromoteConfig.parse(config), bento, Path(winner.path), Path(evaluation.path)))
    return int(facts["version"])
