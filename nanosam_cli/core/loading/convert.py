"""A model in another tool's contract, by its name, its ONNX file or its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, MissingExtraError, UsageError
from nanosam_cli.core.export.anylabeling import ForAnyLabeling, export_anylabeling
from nanosam_cli.core.export.browser import RUNTIME, ForBrowser, export_browser
from nanosam_cli.core.export.contract_files import Converted, convert_files
from nanosam_cli.core.export.contract_proof import Original
from nanosam_cli.core.export.options import ALL, ExportOptions
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.files import check_writable
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.download import options as download_options
from nanosam_cli.core.zoo.fetch import DownloadProgress, fetch
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, MODELS


def convert_model(
    source: str,
    what: str,
    folder: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
) -> list[Converted]:
    """Write what `options.contract` makes of a model's files.

    A model of the zoo is converted from its ONNX files, and an ONNX file as it is, without torch. A checkpoint, and a
    model of which another shape or precision is asked for, is exported first, with that proof.

    Raises:
        InputError, ModelError, OutputError: as `export_model` and `convert_files`.
        MissingExtraError: it must be exported, and torch is not installed.
        UsageError: an option has no use here.
    """
    options.names(what)
    with open_original(source, what, options, note) as original:
        return convert_files(original, folder, options.contract, overwrite=overwrite, note=note)


def convert_for_anylabeling(
    source: str | None,
    folder: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
) -> ForAnyLabeling:
    """Write a model, the default one without a name, as AnyLabeling and X-AnyLabeling load it; see `convert_model`."""
    refuse_shapes(options, "anylabeling")
    with open_original(source or DEFAULT_MODEL, ALL, options, note) as original:
        return export_anylabeling(original, folder, overwrite=overwrite, note=note)


def export_for_browser(
    source: str | None,
    folder: Path,
    options: ExportOptions,
    runtime: Path | None,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
    progress: DownloadProgress = lambda *_: None,
) -> ForBrowser:
    """Write the page that needs no server, with a model, the default one without a name; see `export_browser`.

    Without `runtime`, onnxruntime-web's package is downloaded once into the cache, and checked by its hash.
    """
    refuse_shapes(options, "browser")
    check_writable(folder)
    with open_original(source or DEFAULT_MODEL, ALL, options, note) as original:
        package = runtime or _downloaded_runtime(note, progress)
        return export_browser(original, package, folder, overwrite=overwrite, note=note)


def _downloaded_runtime(note: Note, progress: DownloadProgress) -> Path:
    target = paths.home() / "browser" / RUNTIME.file
    asked = download_options(None, False, False)
    if not target.is_file():
        note(f"downloading {RUNTIME.file}, 33 MB, once; --runtime takes it from a file")
    return fetch(RUNTIME, target, asked, progress, note).path


def refuse_shapes(options: ExportOptions, what: str) -> None:
    """UsageError where something is asked of files whose shape a tool gives."""
    if options != ExportOptions(options.precision, options.opset):
        raise UsageError(
            f"{what} says what its files are like",
            "leave --contract, --batch, --max-points, --single-file and --trainable out",
        )


@contextmanager
def open_original(source: str, what: str, options: ExportOptions, note: Note) -> Iterator[Original]:
    """The files to convert; those that are exported for it are gone afterwards."""
    wanted = (ENCODER, DECODER) if what == ALL else (what,)
    if Path(source).suffix == ".onnx":
        yield Original({what: _onnx_file(source, what, options)}, wanted)
    elif options.is_plain and source in MODELS:
        spec = MODELS[source]
        yield Original(dict(zip((ENCODER, DECODER), model_files(spec, note))), wanted, spec.mean, spec.std)
    else:
        with TemporaryDirectory(prefix="nanosam-") as temporary:
            yield Original(_exported(source, what, Path(temporary), options, note), wanted)


def _onnx_file(source: str, what: str, options: ExportOptions) -> Path:
    path = Path(source)
    if what == ALL:
        raise UsageError(
            f"{source} is one part of a model", f"nanosam export encoder|decoder {source} --contract {options.contract}"
        )
    if not options.is_plain:
        raise UsageError(
            f"{source} is an ONNX file already: shapes and precision are those of a checkpoint's export",
            "leave those options out",
        )
    if not path.is_file():
        raise InputError(f"no such ONNX file: {source}", "check the path")
    return path


def _exported(source: str, what: str, folder: Path, options: ExportOptions, note: Note) -> dict[str, Path]:
    try:
        from nanosam_cli.core.export.export import export_model
        from nanosam_cli.core.export.source import find_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting a checkpoint", "train", str(error.name)) from error
    plain = ExportOptions(options.precision, options.opset, options.batch, options.max_points)
    return {file.part: file.path for file in export_model(find_checkpoint(source), folder, what, plain, note=note)}
