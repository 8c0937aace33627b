"""Files of secrets are for their owner, whole or absent, and never replaced by accident."""

import os
import stat

import pytest

from genesis.private_files import (
    FileProblem,
    PrivateFileError,
    read_private,
    read_public,
    write_private,
    write_public,
)
from ledger.errors import UnavailableError


def problem_of(call, *arguments, **named) -> FileProblem:
    with pytest.raises(PrivateFileError) as caught:
        call(*arguments, **named)
    return caught.value.problem


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_private(tmp_path / "key", b"secret")
        write_public(tmp_path / "certificate", b"public")
    finally:
        os.umask(before)
    assert (mode_of(tmp_path / "key"), mode_of(tmp_path / "certificate")) == (0o600, 0o644)


def test_what_was_written_is_read_and_nothing_else_is_left_in_the_folder(tmp_path):
    write_private(tmp_path / "key", b"secret")
    assert read_private(tmp_path / "key", 6) == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_file_that_exists_is_refused_and_untouched(tmp_path):
    path = tmp_path / "key"
    write_private(path, b"old")
    assert problem_of(write_private, path, b"new") is FileProblem.EXISTS
    assert problem_of(write_public, path, b"new") is FileProblem.EXISTS
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    assert problem_of(write_private, tmp_path / "key", b"new") is FileProblem.EXISTS
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_replaced_only_on_request_and_becomes_private(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"a longer old content")
    path.chmod(0o644)
    write_private(path, b"new", replace=True)
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601, 0o666])
def test_a_file_that_others_may_use_is_refused_with_the_command_that_helps(tmp_path, mode):
    path = tmp_path / "my key"
    write_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(PrivateFileError) as caught:
        read_private(path, 100)
    assert caught.value.problem is FileProblem.TOO_OPEN
    assert str(caught.value) == (
        f"{path}: others than its owner may use it (mode {mode:04o}); run: chmod 600 '{path}'"
    )
    assert read_public(path, 100) == b"secret"


def test_each_way_of_not_being_readable_has_its_name(tmp_path):
    write_private(tmp_path / "key", b"secret")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert [
        problem_of(read_private, tmp_path / "absent", 100),
        problem_of(read_private, tmp_path, 100),
        problem_of(read_private, tmp_path / "pipe", 100),
        problem_of(read_private, tmp_path / "key", 5),
        problem_of(read_public, tmp_path / "key" / "below", 5),
    ] == [
        FileProblem.MISSING,
        FileProblem.UNUSABLE,
        FileProblem.UNUSABLE,
        FileProblem.TOO_LARGE,
        FileProblem.UNUSABLE,
    ]


def test_a_folder_that_does_not_exist_is_reported_as_the_worlds_fault(tmp_path):
    with pytest.raises(UnavailableError, match="cannot be written \\(No such file or directory\\)"):
        write_private(tmp_path / "absent" / "key", b"secret")
