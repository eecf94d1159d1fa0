"""Each gate after training closes when it must, through the whole pipeline; the champion keeps serving."""

import pytest

pytestmark = pytest.mark.e2e

FAULT = """
import sys
if "{function}" in sys.orig_argv:
{body}
"""


@pytest.fixture
def fault(tmp_path):
    """An environment in which one component's process runs with a fault: a sitecustomize of this test's own."""

    def make(function, body):
        folder = tmp_path / "fault"
        folder.mkdir()
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        (folder / "sitecustomize.py").write_text(FAULT.format(function=function, body=indented))
        from e2e.command import ROOT

        return {"PYTHONPATH": f"{folder}:{ROOT}"}

    return make
