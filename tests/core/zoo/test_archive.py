"""Archives as publishers make them, and as attackers do."""

from __future__ import annotations

import errno
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.zoo import archive
from nanosam_cli.core.zoo.archive import unpack

FILES = {"photos/1.jpg": b"one" * 1000, "photos/deep/2.jpg": b"", "readme.txt": b"hello"}


def make_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("photos/", b"")
        for name, data in files.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(path: Path, folder: Path) -> list[tuple[int, int | None]]:
    steps: list[tuple[int, int | None]] = []
    unpack(path, folder, lambda done, total: steps.append((done, total)))
    return steps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where archives are unpacked; what leads out of it would lie beside it."""
    place = tmp_path / "outer" / "inner"
    place.mkdir(parents=True)
    return place


@pytest.mark.parametrize(
    "make",
    [
        lambda path: make_zip(path, FILES),
        lambda path: make_zip(path, FILES, zipfile.ZIP_STORED),
        lambda path: make_zip(path, FILES, zipfile.ZIP_LZMA),
        lambda path: make_tar(path, FILES),
        lambda path: make_tar(path, {f"./{name}": data for name, data in FILES.items()}, "w:gz"),
        lambda path: make_tar(path, FILES, "w:xz"),
    ],
    ids=["zip", "stored zip", "lzma zip", "tar", "tar.gz with dots", "tar.xz"],
)
def test_everything_is_unpacked(make: Callable[[Path], Path], tmp_path: Path, folder: Path) -> None:
    steps = run(make(tmp_path / "archive"), folder)
    assert content(folder) == FILES
    assert all(path.stat().st_mode & 0o7111 == 0 for path in folder.rglob("*") if path.is_file())  # no programs
    assert (steps[0], steps[-1]) == ((0, 3005), (3005, 3005))


# hostile archives: nothing is written, neither inside nor outside


def zip_of(*infos: tuple[zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("good.txt", b"good")
            for info, data in infos:
                file.writestr(info, data)

    return make


def named(name: str, data: bytes = b"evil", mode: int = 0) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # as written, without the tidying of the constructor
    info.external_attr = mode << 16
    return info, data


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with tarfile.open(path, "w") as file:
            good = tarfile.TarInfo("good.txt")
            good.size = 4
            file.addfile(good, io.BytesIO(b"good"))
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            file.addfile(info)

    return make


def huge_tar(path: Path) -> None:
    """A header that promises a terabyte, and nothing behind it."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 40
    path.write_bytes(info.tobuf() + b"\0" * 10240)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr(f"{number}", b"\0" * 30_000_000)


def lying_zip(path: Path) -> None:
    """A member that is longer than it says."""
    make_zip(path, {"a.txt": b"0123456789"}, zipfile.ZIP_STORED)
    size = (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (4).to_bytes(4, "little")))


def locked_zip(path: Path) -> None:
    make_zip(path, {"a.txt": b"0123456789"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last member: encrypted
    path.write_bytes(data)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "zip, up": (zip_of(named("../evil.txt")), r"member '\.\./evil\.txt' leads out of the folder"),
    "zip, up in the middle": (zip_of(named("a/../../evil.txt")), "leads out of the folder"),
    "zip, absolute": (zip_of(named("/tmp/evil.txt")), "leads out of the folder"),
    "zip, drive": (zip_of(named("C:/evil.txt")), "leads out of the folder"),
    "zip, backslashes": (zip_of(named("..\\evil.txt")), "leads out of the folder"),
    "zip, a backslash": (zip_of(named("a\\evil.txt")), "no usable file name"),
    "zip, link": (zip_of(named("link", b"/etc/passwd", stat.S_IFLNK | 0o777)), "is a link or a device"),
    "zip, device": (zip_of(named("device", b"", stat.S_IFBLK | 0o666)), "is a link or a device"),
    "zip, twice": (zip_of(named("a"), named("a")), "more than once"),
    "zip, a file as a folder": (zip_of(named("a"), named("a/b")), "more than once"),
    "zip, password": (locked_zip, "needs a password"),
    "zip, bomb": (bomb, "refused as a bomb: 0.1 MB would become 90.0 MB or more"),
    "zip, longer than it says": (lying_zip, "damaged"),
    "tar, up": (tar_of("../evil.txt"), "leads out of the folder"),
    "tar, absolute": (tar_of("/tmp/evil.txt"), "leads out of the folder"),
    "tar, link out": (tar_of("link", tarfile.SYMTYPE, "../.."), "is a link or a device"),
    "tar, hard link": (tar_of("link", tarfile.LNKTYPE, "/etc/passwd"), "is a link or a device"),
    "tar, device": (tar_of("null", tarfile.CHRTYPE), "is a link or a device"),
    "tar, pipe": (tar_of("pipe", tarfile.FIFOTYPE), "is a link or a device"),
    "tar, promises a terabyte": (huge_tar, "refused as a bomb: 0.0 MB would become 1099511.6 MB or more"),
    "half a zip": (lambda path: path.write_bytes(make_zip(path, FILES).read_bytes()[:-40]), "neither a zip nor a tar"),
    "a web page": (lambda path: path.write_bytes(b"<html>"), "neither a zip nor a tar"),
    "nothing": (lambda path: path.write_bytes(b""), "neither a zip nor a tar"),
    "missing": (lambda _: None, "no such archive"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_and_broken_archives(case: str, tmp_path: Path, folder: Path) -> None:
    make, words = HOSTILE[case]
    make(tmp_path / "archive")
    with pytest.raises(InputError, match=words):
        run(tmp_path / "archive", folder)
    beside = {path.name for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents}
    assert beside <= {"archive"}
    if "twice" not in case and "file as a folder" not in case and "longer" not in case:  # seen while writing
        assert content(folder) == {}


def test_damage_in_the_middle(tmp_path: Path, folder: Path) -> None:
    path = make_zip(tmp_path / "archive", {"a.txt": bytes(range(256)) * 100}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged: Bad CRC-32"):
        run(path, folder)
    path = make_tar(tmp_path / "archive", {"a.txt": bytes(range(256)) * 1000}, "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        run(path, folder)


def test_a_disk_that_is_too_small_is_found_out_first(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(tmp_path / "archive", FILES)
    usage = shutil.disk_usage("/")._replace(free=3000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="not enough space"):
        run(path, folder)
    assert content(folder) == {}


def test_what_the_disk_refuses_is_no_fault_of_the_archive(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run(make_zip(tmp_path / "archive", FILES), folder)


def test_text_that_shrinks_well_is_no_bomb(tmp_path: Path, folder: Path) -> None:
    path = make_zip(tmp_path / "archive", {"big.json": b"[1, 2, 3],\n" * 1_000_000})
    assert path.stat().st_size * archive.LARGEST_RATIO < 11_000_000  # above the ratio, but small
    run(path, folder)
    assert (folder / "big.json").stat().st_size == 11_000_000
