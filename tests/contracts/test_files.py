"""Nothing is half-written, and a changed file is noticed."""

import json

import pytest

from components.contracts import files
from components.contracts.errors import CorruptArtifact, DataError


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "a.bin").write_bytes(b"abc")
    (folder / "b.txt").write_text("b")
    files.write_manifest(folder, rows={"total": 2})
    return folder


def test_manifest_lists_every_file_with_its_hash_and_the_facts(sealed):
    manifest = files.read_manifest(sealed)
    assert sorted(manifest["files"]) == ["b.txt", "part/a.bin"]
    assert manifest["rows"] == {"total": 2}
    assert manifest["files"]["part/a.bin"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_flipped_byte_is_noticed(sealed):
    (sealed / "part" / "a.bin").write_bytes(b"abd")
    with pytest.raises(CorruptArtifact, match=r"part/a\.bin"):
        files.read_manifest(sealed)


def test_a_lost_file_is_noticed(sealed):
    (sealed / "b.txt").unlink()
    with pytest.raises(CorruptArtifact, match=r"b\.txt.*missing"):
        files.read_manifest(sealed)


def test_an_unsealed_folder_is_no_artifact(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        files.read_manifest(tmp_path)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"good": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"bad": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"

    def spoil():
        with files.new_folder(target) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        spoil()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(target) as folder:
        (folder / "whole").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_new_folder_never_overwrites(sealed):
    with pytest.raises(DataError, match="not empty"), files.new_folder(sealed):
        pass
    files.read_manifest(sealed)


def test_fingerprint_sees_contents_and_names_but_not_places(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "log").mkdir(parents=True)
        (tmp_path / name / "log" / "a").write_text("x")
        (tmp_path / name / "other").write_text(name)
    first, second = (files.folder_fingerprint(tmp_path / n, ("log",)) for n in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "log" / "a").write_text("y")
    assert files.folder_fingerprint(tmp_path / "two", ("log",)) != first
