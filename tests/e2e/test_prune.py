"""Pruning frees what no one needs; the champion serves on, and the next run is right."""

import pytest
from e2e.command import serving

pytestmark = pytest.mark.e2e


def test_prune_keeps_what_is_in_use(esmm, shop):
    champions_run = sorted(path.name for path in esmm.home.glob("runs/*"))[0]
    refused = [esmm.run(shop, "--recipe", "smoke", "--set", f"evaluation.seed={n}")["run"] for n in (1, 2)]
    before = sorted(str(path) for path in esmm.home.rglob("*"))
    said = esmm("prune", "--keep", "1", "--dry-run").stdout
    goes = [line for line in said.splitlines() if not line.startswith("kept")]
    assert refused[0] in " ".join(goes)
    assert not any(run in " ".join(goes) for run in (refused[1], champions_run))
    assert sorted(str(path) for path in esmm.home.rglob("*")) == before

    esmm("prune", "--keep", "1")
    assert sorted(path.name for path in esmm.home.glob("runs/*")) == [champions_run, refused[1]]
    with serving(esmm) as rank:
        assert rank("--user", "u1", "--items", "i1,i2")["items"]
    assert esmm.run(shop, "--recipe", "smoke")["status"] == "refused"
