"""A stage's code version follows its own sources and what lies below, nothing else."""

import pytest

from pipelines import code_version as cv


def test_every_stage_has_one_and_it_is_stable():
    versions = {stage: cv.code_version(stage) for stage in cv.PACKAGES}
    assert all(len(version) == 16 for version in versions.values())
    assert versions == {stage: cv.code_version(stage) for stage in cv.PACKAGES}
    assert versions["train"] != versions["ingest"]


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("components.training", {"train"}),
        ("components.scoring", set(cv.PACKAGES)),
        ("feature_repo", {"retrieve", "parity", "materialize"}),
    ],
)
def test_a_changed_source_changes_just_the_stages_above_it(monkeypatch, changed, stages):
    before = {stage: cv.code_version(stage) for stage in cv.PACKAGES}
    real = cv._sources

    def edited(folder, prefix):
        extra = [(f"{prefix}/new.py", b"x = 1")] if prefix == changed else []
        return real(folder, prefix) + extra

    monkeypatch.setattr(cv, "_sources", edited)
    after = {stage: cv.code_version(stage) for stage in cv.PACKAGES}
    assert {stage for stage in before if before[stage] != after[stage]} == stages
