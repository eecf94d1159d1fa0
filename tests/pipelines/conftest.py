from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main


@pytest.fixture
def esmm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, in this process and with a home of its own."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call
