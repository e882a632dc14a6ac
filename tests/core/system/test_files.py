from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.system.files import atomic_write, file_sha256, write_bytes, write_text


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_the_target_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "mask.png"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert names(target.parent) == ["mask.png"]


def test_an_existing_file_is_kept_unless_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(OutputError, match="exists already") as caught:
        write_text(target, "new")
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    assert target.read_text() == "old"
    write_text(target, "new", overwrite=True)
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "video.mp4"

    def write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["video.mp4"]


@pytest.mark.parametrize(
    ("raised", "becomes", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "out.bin: disk full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), OutputError, "out.bin: disk full"),
        (PermissionError(errno.EACCES, "Permission denied"), OutputError, "out.bin: permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), OutputError, "out.bin: permission denied"),
        (OSError(errno.EIO, "Input/output error"), OutputError, "out.bin: Input/output error"),
        (OSError("encoder error -2"), OutputError, "out.bin: encoder error -2"),
        (FileNotFoundError(errno.ENOENT, "No such file", "model.onnx"), FileNotFoundError, "model.onnx"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, raised: BaseException, becomes: type[BaseException], message: str
) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_write(target, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise raised

    with pytest.raises(becomes) as caught:
        write()
    assert message in str(caught.value)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a directory"),
        ("folder", "is a directory"),
        ("file/out.png", "file is not a directory"),
        ("file/deeper/out.png", "not a directory"),
        ("x" * 300, "name too long"),
        ("nul\0.png", "null"),
        ("loop", "cannot write"),
        ("pipe", "not a regular file"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_places_that_cannot_be_written(tmp_path: Path, name: str, message: str, overwrite: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    with pytest.raises(OutputError, match=f"(?i){message}") as caught:
        write_bytes(tmp_path / name, b"data", overwrite)
    assert caught.value.hint
    assert names(tmp_path) == before


def test_a_very_long_name_is_no_trouble(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("x" * 251 + ".png"), b"data")
    assert names(tmp_path) == ["x" * 251 + ".png"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new", overwrite=True)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Grüße\n")
    assert (tmp_path / "a.txt").read_bytes() == b"Gr\xc3\xbc\xc3\x9fe\n"


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("data", [b"", b"abc", bytes(3 << 20)], ids=["empty", "short", "several blocks"])
def test_the_hash_of_a_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
