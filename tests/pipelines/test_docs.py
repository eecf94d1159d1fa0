"""The docs checks notice what they are for."""

from pipelines import docs


def test_the_docs_are_current():
    assert docs.main(check=True) == 0


def test_a_stale_table_is_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text("<!-- generated: recipes -->\nold\n<!-- end generated -->\n")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(check=True) == 1
    assert "out of date" in capsys.readouterr().err
    assert docs.main(check=False) == 0
    assert docs.main(check=True) == 0


def test_a_dead_link_and_a_dead_command_are_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text("[x](nowhere.md) `esmm dance` and `esmm models list`\n")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(check=True) == 1
    said = capsys.readouterr().err
    assert "nowhere.md" in said
    assert "dance" in said
    assert "models" not in said
