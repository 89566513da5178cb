"""What is written is whole, or is not there."""

import os

import pytest

from stonefx.files import (
    folder_atomically,
    remove_unfinished,
    replaced_atomically,
    unfinished,
    write_atomically,
)


def test_write_needs_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing; create it first"):
        write_atomically(tmp_path / "missing" / "a.json", "{}")


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_interrupted_folder_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), folder_atomically(tmp_path / "new") as folder:
        (folder / "a.json").write_text("{}")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_taken_and_a_full_one_kept(tmp_path):
    (tmp_path / "new").mkdir()
    with folder_atomically(tmp_path / "new") as folder:
        (folder / "a.json").write_text("{}")
    with pytest.raises(OSError), folder_atomically(tmp_path / "new") as folder:
        (folder / "b.json").write_text("{}")
    assert os.listdir(tmp_path) == ["new"] and os.listdir(tmp_path / "new") == ["a.json"]


def test_what_an_interrupt_of_the_tidying_left_is_removed_at_last(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    path = tmp_path / "a.json"
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch, unfinished(path):
        path.write_text("half")
        patch.setattr("pathlib.Path.unlink", interrupt)
        raise KeyboardInterrupt
    assert path.exists()
    remove_unfinished()
    assert os.listdir(tmp_path) == []


def test_a_file_is_one_that_others_may_read(tmp_path):
    write_atomically(tmp_path / "a.json", "{}")
    (tmp_path / "b.json").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


@pytest.mark.parametrize("length", [1, 200, 255])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, length):
    with replaced_atomically(tmp_path / ("a" * length)) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["a" * length]
