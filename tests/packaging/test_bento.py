"""A Bento is self-contained, the same twice, and whole or absent."""

import shutil

import pytest
import yaml
from tiny_model import make_model

from components.contracts.errors import CorruptArtifact, ServiceError
from components.contracts.files import read_json
from components.packaging import bento
from components.packaging.process import bento_path


def test_it_holds_model_code_and_origin_and_nothing_else(built, model):
    home, tag = built
    source = bento_path(home, tag) / "src"
    assert {p.name for p in source.iterdir()} == {"bentofile.yaml", "components", "serving", "model", "packaged.json"}
    assert {p.name for p in (source / "components").iterdir()} == {"__init__.py", "contracts", "scoring"}
    assert (source / "model/model.onnx").read_bytes() == (model / "model.onnx").read_bytes()
    assert read_json(source / "packaged.json")["run"] == "20260110T000000-aaaa"


def test_labels_and_pins(built):
    home, tag = built
    folder = bento_path(home, tag)
    labels = yaml.safe_load((folder / "bento.yaml").read_text())["labels"]
    assert labels == {
        "dataset": "shop",
        "run": "20260110T000000-aaaa",
        "candidate": "esmm",
        "as_of": "2026-01-10T00:00:00Z",
    }
    pinned = (folder / "env/python/requirements.txt").read_text().split()
    assert all("==" in line for line in pinned)
    names = {line.split("==")[0] for line in pinned}
    assert {"bentoml", "feast", "numpy", "onnxruntime", "pydantic", "starlette"} <= names
    assert names.isdisjoint({"torch", "kfp", "mlflow", "great-expectations"})


def test_the_same_again_is_the_same(built, model):
    home, tag = built
    assert bento.build(home, bento.PackageConfig(dataset="shop"), model, "20260110T000000-aaaa") == (tag, True)


def test_another_model_has_another_tag(built, tmp_path):
    home, tag = built
    other = make_model(tmp_path / "other", seed=9)
    name, version = tag.split(":")
    made, reused = bento.build(home, bento.PackageConfig(dataset="shop"), other, "20260110T000000-aaaa")
    assert not reused
    assert made != tag
    assert made.startswith(f"{name}:{version.rsplit('-', 1)[0]}-")
    shutil.rmtree(bento_path(home, made))


def test_a_changed_model_is_not_packaged_and_nothing_is_left(home, model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"other")
    with pytest.raises(CorruptArtifact, match=r"model\.onnx"):
        bento.build(home, bento.PackageConfig(dataset="shop"), broken, "r")
    assert list(home.root.rglob("*.yaml")) == []
    assert list(home.bentoml.glob(".*")) == []


def test_a_failed_build_says_why_and_leaves_nothing(home, model, monkeypatch):
    monkeypatch.setattr(bento, "SERVICE", "serving.nothing:Here")
    with pytest.raises(ServiceError, match=r"serving\.nothing"):
        bento.build(home, bento.PackageConfig(dataset="shop"), model, "r")
    assert [p for p in home.bentoml.rglob("*") if p.is_file()] == []


def test_run_names_the_bento_after_the_run(built, home, model, monkeypatch, tmp_path):
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "20260111T000000-bbbb"))
    facts = bento.run(bento.PackageConfig(dataset="My Shop!"), model)
    assert facts["bento"].startswith("esmm-my-shop-")
    assert ":20260111t000000-bbbb-" in facts["bento"]
    assert facts["bytes"] > 0
    assert not facts["reused"]
    monkeypatch.delenv("ESMM_RUN_DIR")
    assert bento.run_name(model).startswith("model-")


@pytest.mark.parametrize("name", ["shop", "Shop", "a b", "x" * 100, "日本"])
def test_names_are_valid_tags_and_distinct(name):
    made = bento.bento_name(name)
    assert len(made) <= 63
    assert made == made.lower()
    assert made != bento.bento_name(name + "1")
