from components.packaging import pins


def test_the_lock_decides_and_markers_choose(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# made by hand\n"
        "feast==0.0.1\n"
        "numpy==1.0 ; python_full_version < '3'\n"
        "numpy==9.9 ; python_full_version >= '3'\n"
        "Pydantic.Core==7  # odd spelling\n"
    )
    found = pins.pins(lock)
    assert {"feast==0.0.1", "numpy==9.9", "pydantic-core==7"} <= set(found)


def test_without_a_lock_the_installed_versions_count(tmp_path):
    found = dict(line.split("==") for line in pins.pins(tmp_path / "none"))
    assert found["numpy"] == pins.metadata.version("numpy")
    assert "bentoml" not in found


def test_the_closure_holds_what_the_libraries_need_and_no_training():
    names = pins.closure(pins.DIRECT)
    assert {"pyarrow", "uvicorn", "pydantic-core"} <= names
    assert {"redis", "hiredis", "mmh3", "psycopg", "psycopg-binary"} <= names
    assert names.isdisjoint({"torch", "kfp", "mlflow"})
