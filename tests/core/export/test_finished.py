"""`nanosam export all` that was killed: the same command keeps what was finished, and refuses what is another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.export import proof
from nanosam_cli.core.export.export import export_model
from nanosam_cli.core.export.finished import find_finished
from nanosam_cli.core.export.options import ExportOptions
from tests.command_line import run_nanosam

# one photo to prove with; killed when the decoder's card, or the decoder itself, is written
_KILLED = """
import os, signal, sys
from nanosam_cli.core.export import export as module, proof
photos = proof.example_photos()[-1:]
proof.example_photos = lambda: photos
moment, write = sys.argv.pop(1), module.write_text
def killed(path, *arguments):
    if moment == "after the card" or path.name != "decoder.md":
        write(path, *arguments)
    if path.name == "decoder.md":
        os.kill(os.getpid(), signal.SIGKILL)
module.write_text = killed
from nanosam_cli.app import main
main()
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = proof.example_photos()[-1:]
    monkeypatch.setattr(proof, "example_photos", lambda: photos)


def kill(trained: Path, moment: str) -> None:
    program = [sys.executable, "-c", _KILLED, moment, "export", "all", str(trained), "-o", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(program, env=environment, capture_output=True).returncode == -signal.SIGKILL


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before the card", ["encoder.md", "encoder.onnx"]),
        ("after the card", ["decoder.md", "encoder.md", "encoder.onnx"]),
    ],
)
def test_the_same_command_goes_on(trained: Path, moment: str, left: list[str]) -> None:
    out = Path("out")
    kill(trained, moment)
    assert visible(out) == left
    encoder = (out / "encoder.onnx").read_bytes()
    stamp = (out / "encoder.onnx").stat().st_mtime_ns
    ran = run_nanosam("export", "all", trained, "-o", "out", "--json")
    assert ran.code == 0, ran.err
    assert "out/encoder.onnx is finished and proved by the same command: it is kept" in ran.err
    assert ("out/decoder.md was left by a run that was killed, without its file: removed" in ran.err) is (
        "decoder.md" in left
    )
    assert "tracing encoder" not in ran.err
    assert visible(out) == ["decoder.md", "decoder.onnx", "encoder.md", "encoder.onnx"]
    assert (out / "encoder.onnx").stat().st_mtime_ns == stamp
    # the same as of a run that nobody killed
    assert export_model(trained, Path("whole"), "encoder")[0].path.read_bytes() == encoder
    whole = export_model(trained, Path("whole2"), "all")
    assert (out / "decoder.onnx").read_bytes() == whole[1].path.read_bytes()
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [record["max_difference"] for record in records] == [file.proof.max_difference for file in whole]
    again = run_nanosam("export", "all", trained, "-o", "out")
    assert again.code == 1
    assert "out/encoder.onnx exists already, finished and proved by the same command add `--force`" in again.words


def test_what_is_not_the_same_is_refused_by_name(trained: Path) -> None:
    out = Path("out")
    (file,) = export_model(trained, out, "decoder")
    for options, words in (
        (ExportOptions(opset=18), r"exporter was .*opset 17\", is .*opset 18"),
        (ExportOptions(max_points=4), r"max_points was null, is 4"),
        (ExportOptions(precision="fp16"), r'precision was "fp32", is "fp16"'),
    ):
        with pytest.raises(OutputError, match=rf"decoder\.onnx exists already, made with other settings: {words}"):
            export_model(trained, out, "all", options)
    other = Path("other.safetensors")
    other.write_bytes(trained.read_bytes() + b" ")
    with pytest.raises(OutputError, match=r"other settings: checkpoint was"):
        export_model(other, out, "all")
    with file.path.open("ab") as edited:
        edited.write(b"\0")
    with pytest.raises(OutputError, match=r"decoder\.onnx exists already, and is not the file that decoder\.md speaks"):
        export_model(trained, out, "all")


@pytest.mark.parametrize(
    "card",
    [
        "mine",
        "<!-- nanosam export {} -->\n",
        "<!-- nanosam export [1] -->\n",
        '<!-- nanosam export {"sha256": "a", "settings": {}, "proof": {"mask_iou": null, "wrong": 1}} -->\n',
        "<!-- nanosam export " + "[" * 100_000 + " -->\n",
    ],
    ids=["none", "empty", "a list", "of another kind", "deep"],
)
def test_a_card_of_somebody_else_is_kept(tmp_path: Path, card: str) -> None:
    path = tmp_path / "encoder.onnx"
    path.with_suffix(".md").write_text(card)
    with pytest.raises(OutputError, match=r"encoder\.md exists already"):
        find_finished(path, {})
