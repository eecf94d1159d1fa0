"""The Feast repository: applied by Feast's own command and by ours, it is the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from feast.repo_operations import get_repo_files
from features.made import view_table, write_features

import feature_repo
from components.contracts.errors import UsageError
from components.contracts.online import ENTITY_KEY_VERSION
from feature_repo import store, views

REPO = Path(feature_repo.__file__).parent


def registered(opened, kind):
    """name -> what was declared, without the times at which it was."""
    found = {}
    for item in getattr(opened, f"list_{kind}")():
        proto = item.to_proto()
        proto.ClearField("meta")
        if kind == "feature_views":
            proto.spec.batch_source.ClearField("meta")
        if kind == "feature_services":
            for projection in proto.spec.features:
                projection.batch_source.ClearField("meta")
        found[item.name] = proto.SerializeToString(deterministic=True)
    return {name: proto for name, proto in found.items() if not name.startswith("__")}


@pytest.fixture
def features(tmp_path):
    tables = {
        "user_profile": view_table("user_profile", [{"user_id": "u1", "event": 0}]),
        "item_activity": view_table("item_activity", [{"item_id": "i1", "event": 0}]),
        "ali_ccp_user": view_table("ali_ccp_user", [{"group_id": "train-1", "event": 0}]),
    }
    return write_features(tmp_path / "features", tables)


def test_feast_s_own_command_applies_the_same(features, tmp_path):
    copy = tmp_path / "checkout" / "feature_repo"
    shutil.copytree(REPO, copy, ignore=shutil.ignore_patterns("__pycache__"))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(copy.parent), str(REPO.parent)]),
        "ESMM_FEATURES_DIR": str(features), "ESMM_FEAST_DIR": str(theirs), "ESMM_FEAST_PROJECT": "tiny",
    }  # fmt: skip
    feast = Path(sys.executable).parent / "feast"
    done = subprocess.run([feast, "apply"], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    opened = store.open_store("tiny", ours)
    store.apply(opened, features, ("user_profile", "item_activity", "ali_ccp_user"))
    other = store.open_store("tiny", theirs)
    for kind in ("entities", "feature_views", "feature_services", "data_sources"):
        assert registered(opened, kind) == registered(other, kind), kind
    assert set(registered(other, "feature_views")) == {"user_profile", "item_activity", "ali_ccp_user"}
    assert set(registered(other, "feature_services")) == {"esmm"}
    assert set(registered(other, "entities")) == {"user", "item", "group"}
    fields = {f.name: str(f.dtype) for f in other.get_feature_view("ali_ccp_user").features}
    assert (fields["f109_14"], fields["f109_14_weights"]) == ("Array(String)", "Array(Float64)")


def test_feast_imports_definitions_alone():
    assert [path.name for path in get_repo_files(REPO)] == ["definitions.py"]


def test_definitions_without_a_features_folder_say_so(monkeypatch):
    monkeypatch.delenv("ESMM_FEATURES_DIR", raising=False)
    with pytest.raises(UsageError, match="ESMM_FEATURES_DIR is not set"):
        store.environment_features_dir()


def test_the_yaml_s_entity_keys_are_those_of_the_service(tmp_path):
    assert store.open_store("tiny", tmp_path).config.entity_key_serialization_version == ENTITY_KEY_VERSION


def test_only_present_views_are_built():
    assert [view.name for view in views.build("somewhere", ("item_profile", "something_else"))] == ["item_profile"]


def test_a_feature_is_one_line():
    lines = [
        line
        for name in ("views.py", "ali_ccp.py")
        for line in re.findall(r"^        field\(\"(\w+)\", .*\),$", (REPO / name).read_text(), re.MULTILINE)
    ]
    assert lines == [field.name for view in views.VIEWS for field in view.fields]


def test_the_table_for_the_docs_names_every_feature():
    rows = views.features_table()
    named = {row[0].strip("`"): row for row in rows}
    fields = {field.name for view in views.VIEWS for field in view.fields}
    assert {name for name in fields if not name.endswith("_weights")} <= set(named)
    assert {"position", "f301"} <= set(named)
    assert not fields & {name for name in named if name.endswith("_weights")}
    assert named["f109_14"][1:] == (
        "`ali_ccp_user`", "list of strings, weighted", "bag, combiner mean, max_values 32",
    )  # fmt: skip
    assert named["price"][3] == "bucket, minimum 0"
