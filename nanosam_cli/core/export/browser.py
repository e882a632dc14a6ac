"""A folder for any file server: a page, a model's two files, and onnxruntime-web, copied from its package."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, ModelError
from nanosam_cli.core.export.contract_files import check_free, read_model
from nanosam_cli.core.export.contract_proof import Original
from nanosam_cli.core.graphs.graph import external_files, metadata_of
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import read_contract
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.files import write_bytes
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.remote_file import RemoteFile

RUNTIME = RemoteFile(
    "onnxruntime-web-1.30.0.tgz",
    url="https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz",
    size=33_106_585,
    sha256="d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
)
_PAGE = ("index.html", "page.js", "model.js", "geometry.js", "style.css")
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_GET_IT = "npm pack onnxruntime-web@1.30.0, then --runtime onnxruntime-web-1.30.0.tgz"

_LICENCES = """\
The page (index.html, page.js, model.js, geometry.js, style.css) is part of nanosam, Apache-2.0:
https://www.apache.org/licenses/LICENSE-2.0

encoder.onnx and decoder.onnx are the model {model}. Licence of the weights: {weights}

{script} and {wasm}.gz (zipped, else unchanged) are of onnxruntime-web {version},
https://github.com/microsoft/onnxruntime, whose package says: licence {licence}. Notices of what it was built of:
https://github.com/microsoft/onnxruntime/blob/main/ThirdPartyNotices.txt

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class ForBrowser:
    """What was written."""

    folder: Path
    sizes: Mapping[str, int]  # bytes by file name
    runtime: str  # onnxruntime-web's version

    @property
    def bytes(self) -> int:
        """Of the whole folder."""
        return sum(self.sizes.values())

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"folder": str(self.folder), "sizes": self.sizes, "bytes": self.bytes, "onnxruntime_web": self.runtime}


def export_browser(
    original: Original, runtime: Path, folder: Path, *, overwrite: bool = False, note: Note = lambda _: None
) -> ForBrowser:
    """Write the folder. `runtime` is onnxruntime-web's package as npm has it: a .tgz, or what it unpacks to.

    Raises:
        InputError: `runtime` is no such package.
        ModelError: the model's files are outside the contract, or keep their weights elsewhere.
        OutputError: a file exists already, or cannot be written.
    """
    names = (*_PAGE, "model.json", "encoder.onnx", "decoder.onnx", _SCRIPT, f"{_WASM}.gz", "licences.txt")
    check_free(folder, [folder / name for name in names], overwrite)
    side = _image_size(original)
    told = metadata_of(read_model(original.files[ENCODER]))
    model = told.get("nanosam.model", original.files[ENCODER].stem)
    with _package(runtime) as read:
        package = json.loads(read("package.json"))
        note(f"onnxruntime-web {package['version']} from {runtime}")
        facts = {"model": model, "image_size": side, "mean": original.mean, "std": original.std}
        licences = _LICENCES.format(
            model=model,
            weights=told.get("nanosam.licence", "not said in the file"),
            script=_SCRIPT,
            wasm=_WASM,
            version=package["version"],
            licence=package.get("license", "not said"),
        )
        contents = {
            **{name: paths.resource("browser", name).read_bytes() for name in _PAGE},
            "model.json": json.dumps(facts, indent=2).encode() + b"\n",
            **{f"{part}.onnx": original.files[part].read_bytes() for part in (ENCODER, DECODER)},
            _SCRIPT: read(f"dist/{_SCRIPT}"),
            f"{_WASM}.gz": gzip.compress(read(f"dist/{_WASM}"), 9, mtime=0),  # 14 MB are 4 so
            "licences.txt": licences.encode(),
        }
    for name, data in contents.items():
        write_bytes(folder / name, data, overwrite)
    return ForBrowser(folder, {name: len(data) for name, data in contents.items()}, package["version"])


def _image_size(original: Original) -> int:
    """S; ModelError where the page could not run the pair."""
    for part in (ENCODER, DECODER):
        if beside := external_files(original.files[part]):
            raise ModelError(
                f"{original.files[part]} keeps weights in {', '.join(beside)}, which the page does not load",
                "nanosam export all SOURCE, which writes whole files",
            )
    encoder, decoder = (open_file(original.files[part], "cpu", None) for part in (ENCODER, DECODER))
    try:
        return read_contract(encoder, decoder).image_size
    finally:
        encoder.close()
        decoder.close()


@contextmanager
def _package(runtime: Path) -> Iterator[Callable[[str], bytes]]:
    """Reads files of an npm package. InputError where it is not onnxruntime-web, or a file is missing."""
    if runtime.is_dir():
        inner = runtime / "package" if (runtime / "package").is_dir() else runtime
        yield _checked(runtime, lambda name: (inner / name).read_bytes())
        return
    try:
        archive = tarfile.open(runtime, "r:gz")  # noqa: SIM115  # closed below
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{runtime} is no package of npm: {error}", _GET_IT) from error
    with archive:

        def member(name: str) -> bytes:
            found = archive.extractfile(f"package/{name}")
            if found is None:
                raise FileNotFoundError(name)
            return found.read()

        yield _checked(runtime, member)


def _checked(runtime: Path, read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    def checked(name: str) -> bytes:
        try:
            data = read(name)
            if name == "package.json" and json.loads(data)["name"] != "onnxruntime-web":
                raise ValueError(f"it is {json.loads(data)['name']}")
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise InputError(f"{runtime} is not onnxruntime-web as npm has it: {name}: {error}", _GET_IT) from error
        return data

    return checked
