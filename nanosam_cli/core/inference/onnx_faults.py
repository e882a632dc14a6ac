"""Why ONNX Runtime cannot load a file, told from the file itself, and the step that mends it."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from nanosam_cli.core.errors import ModelError

# `Unsupported model IR version: 99, max supported IR version: 14`, behind a line of C++
_TOO_NEW = re.compile(r"(unsupported model IR version.*|current official support for domain .*)", re.I)
# `No Op registered for X with domain_version of 17`, `my:X(-1) is not a registered function/op`
_UNKNOWN_OPERATOR = re.compile(
    r"no op registered for|is not a registered function|could not find an implementation", re.I
)
_OTHER_FILES = {  # how they begin
    b"version https://git-lfs": "it is a pointer of Git LFS, and `git lfs pull` fetches the file",
    b"<": "it is a web page",
    b"PK\x03\x04": "it is a zip file, such as a PyTorch checkpoint or an archive",
    b"\x80": "it is a pickle, such as a PyTorch checkpoint",
    b"{": "it is text",
}
_AGAIN = "download or export it again"
_LAST_FIELD = 26  # of `ModelProto` in onnx.proto; 1 to 14, 20, 25 and 26 are used


def load_error(path: Path, runtime: str, reason: str) -> ModelError:
    """What to tell of a file that `runtime` (its name and version) refused with `reason`."""
    if found := _TOO_NEW.search(reason):
        return ModelError(
            f"{path} is too new for {runtime}: {found[0]}",
            "pip install -U onnxruntime, or export it for an older ONNX (a lower opset and IR version)",
        )
    if beside := _weights_missing(path):
        return ModelError(
            f"{path} keeps weights in {', '.join(beside)}, which {'is' if len(beside) == 1 else 'are'} not there",
            f"put {', '.join(beside)} beside it, under that name, in {path.parent.absolute()}",
        )
    if _UNKNOWN_OPERATOR.search(reason):
        return ModelError(
            f"{path} has an operator that {runtime} does not know: {reason}",
            "pip install -U onnxruntime, or export it without operators of its own",
        )
    return ModelError(
        f"{path} is not a whole ONNX file that {runtime} can load: {_kind(path) or reason}",
        _AGAIN,
    )


def _weights_missing(path: Path) -> list[str]:
    """The files of weights that the model names in its own folder, and that are not there."""
    from nanosam_cli.core.graphs.graph import external_files

    try:
        names = external_files(path)
    except (ModelError, OSError, ValueError):
        return []
    inside = [name for name in names if not PureWindowsPath(name).anchor and ".." not in PureWindowsPath(name).parts]
    return [name for name in inside if not (path.parent / name).exists()]


def _kind(path: Path) -> str | None:
    """What a file is that protobuf cannot parse, in words; None where that is not seen."""
    with path.open("rb") as file:
        start = file.read(64)
        for begin, words in _OTHER_FILES.items():
            if start.lstrip().startswith(begin):
                return words
        file.seek(0)
        size = path.stat().st_size
        position = 0
        while position < size:
            tag = _varint(file.read(10))
            if tag is None or not 1 <= tag[0] >> 3 <= _LAST_FIELD or tag[0] & 7 not in (0, 2):
                return None
            file.seek(position + tag[1])
            length = _varint(file.read(10))
            if length is None:
                return "it is cut off"
            position += tag[1] + length[1] + (length[0] if tag[0] & 7 == 2 else 0)
            if position > size:
                return f"it is cut off: {size} bytes of {position} or more"
            file.seek(position)
    return None


def _varint(data: bytes) -> tuple[int, int] | None:
    """A number of protobuf's, and how many bytes it takes; None where they end too soon."""
    number = 0
    for place, byte in enumerate(data):
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number, place + 1
    return None
