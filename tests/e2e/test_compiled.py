"""The compiled IR is what a cluster runs: it is deterministic, and it runs here."""

import pytest
import yaml

pytestmark = pytest.mark.e2e


def test_the_compiled_ir_runs(esmm, shop, tmp_path):
    for name in ("a.yaml", "b.yaml"):
        esmm("compile", "--out", tmp_path / name)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
    result = esmm.run(shop, "--recipe", "smoke", "--pipeline", tmp_path / "a.yaml")
    assert result["status"] == "refused"
    assert "identical" in " ".join(result["reasons"])
    assert "train-esmm" in result["cached"]


def test_the_image_is_replaced_everywhere(esmm, tmp_path):
    esmm("compile", "--out", tmp_path / "a.yaml", "--image", "registry.example/esmm:1")
    spec = next(yaml.safe_load_all((tmp_path / "a.yaml").read_text()))
    executors = spec["deploymentSpec"]["executors"].values()
    images = {executor["container"]["image"] for executor in executors}
    assert images == {"registry.example/esmm:1"}
