"""Fixtures: a clean log, its config, and the stage over it in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from validation.made import CONFIG, Row, Stage, clean_rows, feature_rows

from components.validation.validate import ValidateConfig, ValidationLimits


@pytest.fixture
def new_stage(tmp_path: Path) -> Callable[[], Stage]:
    numbers = iter(range(10**6))
    return lambda: Stage(tmp_path / f"stage{next(numbers)}")


@pytest.fixture
def stage(new_stage: Callable[[], Stage]) -> Stage:
    return new_stage()


@pytest.fixture
def rows() -> list[Row]:
    return clean_rows()


@pytest.fixture
def config() -> ValidateConfig:
    return CONFIG


@pytest.fixture
def features() -> list[Row]:
    return feature_rows()


@pytest.fixture
def limited() -> Callable[..., ValidateConfig]:
    """The config with other limits."""
    return lambda **limits: CONFIG.model_copy(update={"limits": ValidationLimits(**limits)})


@pytest.fixture
def loose(limited: Callable[..., ValidateConfig]) -> ValidateConfig:
    """No share of bad rows closes the gate."""
    return limited(max_day_bad_share=1.0, max_day_funnel_share=1.0, max_total_bad_share=1.0)


@pytest.fixture
def make_rows() -> Callable[..., list[Row]]:
    return clean_rows
