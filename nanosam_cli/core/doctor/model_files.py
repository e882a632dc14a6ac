"""The files of the models and of the cache: whether they are there, whole, and what they say about themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.doctor.check import Check
from nanosam_cli.core.errors import BackendError, ModelError, NanosamError
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.inference.sidecar import Flavour, check_engine, read_sidecar, sidecar_path
from nanosam_cli.core.loading.engines import FLAVOURS, check, engine_folder, engine_name
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.ownership import others_can_write
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import CHECKPOINT, MODELS, ModelSpec, file_path
from nanosam_cli.core.zoo.partial_file import PartFile

_SAID = ("model", "part", "image_size", "precision", "exporter")  # of a file's metadata


def model_checks() -> Iterator[Check]:
    """Every part of every model of the zoo."""
    for spec in MODELS.values():
        for part in spec.parts:
            yield _part(spec, part)


def cache_checks() -> Iterator[Check]:
    """The cache directory, what it holds, engines, and files with a recorded hash, `FILE.sha256`, beside them."""
    home = paths.home()
    nearest = next(parent for parent in (home, *home.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        detail = f"{home} cannot be written"
        yield Check("cache", "directory", "broken", detail, f"set {paths.HOME.name} to a directory that can be written")
        return
    if not home.exists():
        yield Check("cache", "directory", "ok", f"{home}, which does not exist yet: nothing was downloaded or built")
        return
    if fault := others_can_write([home]):
        detail = f"{fault}: what lies in it may be another's, and engines of it are passed over"
        yield Check(
            "cache", "directory", "broken", detail, f"chmod -R o-w {home}, or set {paths.HOME.name} to your own"
        )
    else:
        yield Check("cache", "directory", "ok", f"{home}, {_content(home)}")
    for entry in sorted(home.iterdir()):
        yield Check("cache", entry.name, "ok", _content(entry))
    for spec in MODELS.values():
        for flavour in FLAVOURS:
            for part in (ENCODER, DECODER):
                yield from _engine(spec, part, flavour)
    for recorded in sorted(home.rglob("*.sha256")):
        yield _recorded(home, recorded)
    for about in sorted(home.rglob("*.part.json")):
        yield _unfinished(home, about)


def _part(spec: ModelSpec, part: str) -> Check:
    name, path = f"{spec.name} {part}", file_path(spec, part)
    again = "pip install --force-reinstall nanosam-cli" if spec.bundled else f"nanosam download {spec.name} --force"
    if not path.is_file():
        return Check("models", name, "missing", f"no {path}", again.removesuffix(" --force"))
    published, found = spec.parts[part].sha256, file_sha256(path)
    if published and found != published:
        detail = f"{path} is not the published file: its sha256 is {found}, not {published}"
        return Check("models", name, "broken", detail, again)
    said: dict[str, str] = {}
    try:
        if part != CHECKPOINT:  # which no runtime opens
            with closing(open_session(path)) as session:
                said = session.metadata
    except NanosamError as error:
        return Check("models", name, "broken", str(error), error.hint or again)
    origin = "as published" if published else f"{found[:12]}..., none is published"
    facts = [f"{key} {said[f'nanosam.{key}']}" for key in _SAID if f"nanosam.{key}" in said]
    detail = ", ".join([f"{path.stat().st_size / 1e6:.1f} MB", f"sha256 {origin}", *facts])
    return Check("models", name, "ok", detail)


def _engine(spec: ModelSpec, part: str, flavour: Flavour) -> Iterator[Check]:
    """An engine against its side-car, its original and this machine; nothing where there is neither of the two."""
    engine = engine_folder(spec, flavour) / engine_name(part, flavour)
    if not (engine.exists() or sidecar_path(engine).exists()):
        return
    name = f"{spec.name} {part}, {flavour}"
    try:
        sidecar = read_sidecar(engine)
        check_engine(engine, sidecar)
        check(engine, flavour, file_path(spec, part))
    except ModelError as error:
        yield Check("engines", name, "broken", f"{error}; commands pass it over", error.hint)
    except BackendError as error:
        yield Check("engines", name, "ok", f"whole, but not for here: {error}")
    else:
        yield Check("engines", name, "ok", f"{sidecar.precision_built}, {sidecar.status}")


def _recorded(home: Path, recorded: Path) -> Check:
    """A file against the hash that was written when it was made: `HEX` or `HEX  NAME`, as sha256sum writes."""
    path = recorded.with_suffix("")
    name = str(path.relative_to(home))
    wanted = recorded.read_text(encoding="ascii", errors="replace").split()[:1]
    if not path.is_file():
        return Check("cache", name, "missing", f"its hash is recorded in {recorded.name}, but it is gone")
    if [file_sha256(path)] != [word.lower() for word in wanted]:
        detail = f"its sha256 is not the one in {recorded.name}"
        return Check("cache", name, "broken", detail, f"delete {path}, and download or build it again")
    return Check("cache", name, "ok", f"sha256 as in {recorded.name}")


def _unfinished(home: Path, about: Path) -> Check:
    """A download that broke off; without knowing where its bytes came from, it begins anew."""
    target = about.with_name(about.name.removesuffix(".part.json"))
    part = PartFile(target)
    name = str(part.path.relative_to(home))
    if part.size and part.origin() is None:
        detail = f"{about.name} does not say what the {part.size} bytes are of, so the download begins anew"
        return Check("cache", name, "broken", detail, f"delete {part.path} and {about}")
    return Check("cache", name, "ok", f"{part.size / 1e6:.1f} MB of a download that broke off")


def _content(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    return f"{size:.1f} MB" if path.is_file() else f"{len(files)} file{'s' * (len(files) != 1)}, {size:.1f} MB"
