"""One process for one data folder."""

import os
import subprocess
import sys

import pytest

from ledger.errors import UnavailableError
from node.folder_lock import LOCK_FILE, FolderInUseError, locked


def test_a_second_owner_is_refused_and_told_who_the_first_one_is(tmp_path):
    with (
        locked(tmp_path / "data"),
        pytest.raises(FolderInUseError, match=f"data is in use by process {os.getpid()};"),
        locked(tmp_path / "data"),
    ):
        pytest.fail("two owners")


def test_another_way_to_the_same_folder_is_the_same_folder(tmp_path):
    (tmp_path / "other").symlink_to(tmp_path / "data")
    with locked(tmp_path / "data"), pytest.raises(FolderInUseError), locked(tmp_path / "other"):
        pytest.fail("two owners")


def test_a_folder_is_free_again_when_its_owner_ends_however_it_ends(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from node.folder_lock import locked\n"
        "with locked(Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 9
    assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="file"), locked(tmp_path / "file"):
        pytest.fail("locked a file")
