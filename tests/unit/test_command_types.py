"""Types of command-line parameters."""

import click
import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.command_types import FolderType


@pytest.mark.parametrize("words", [["demo", "--keep", "--json"], ["simulate", "--directory", "--speed"]])
def test_an_option_is_never_taken_for_a_folder(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"{words[1]}': is to be a folder, got {words[2]}" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_there_or_not_but_is_no_file(tmp_path):
    folder = FolderType()
    assert folder.convert(str(tmp_path), None, None) == tmp_path
    assert folder.convert("./--json", None, None).name == "--json"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(click.BadParameter):
        folder.convert(str(file), None, None)
