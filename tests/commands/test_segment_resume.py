"""`nanosam segment` over many photos as a job: cut off, killed, taken up again, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.segmentation.formats import FORMATS
from nanosam_cli.core.system.journal import Journal
from tests.command_line import Ran, run_nanosam

Run = Callable[..., Ran]
Box = "10,20,60,50"
Two = ("--box", Box, "--box", "30,30,70,70")


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(4):
        photo(f"photos/{number}.png")


@pytest.fixture
def segment(own_files: tuple[Path, Path]) -> Run:
    """`nanosam segment photos` with the fake model and two boxes."""

    def run(*arguments: object) -> Ran:
        return run_nanosam("segment", "photos", *Two, "--encoder", own_files[0], "--decoder", own_files[1], *arguments)

    return run


def photo(path: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    Image.fromarray(noise).save(path)


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Ran]], Ran]:
    """Run something with a Ctrl-C in the third photo."""

    def run(ran: Callable[[], Ran]) -> Ran:
        predict, calls = Predictor.predict, []

        def stop(self: Predictor, *arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return predict(self, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Predictor, "predict", stop)
            return ran()

    return run


Cut = Callable[[Callable[[], Ran]], Ran]


@pytest.mark.parametrize("more", [*([f"--format={kind}"] for kind in FORMATS), ["--separate"]])
def test_a_run_that_was_cut_off_goes_on_to_the_same_files(segment: Run, cut: Cut, more: list[str]) -> None:
    assert segment(*more, "-o", "whole/").code == 0
    ran = cut(lambda: segment(*more, "-o", "cut/"))
    assert (ran.code, len(ran.out.splitlines())) == (130, 2)
    assert "--resume goes on with the photos that are left" in ran.err
    before = {name: Path("cut", name).stat().st_mtime_ns for name in contents("cut")}
    ran = segment(*more, "-o", "cut/", "--resume")
    assert ran.code == 0, ran.err
    assert "2 of 4 photos are done already" in ran.err
    assert "2 of 2 photos done" in ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["photos/2.png", "photos/3.png"]
    assert contents("cut") == contents("whole")
    if not more[0].startswith("--format=coco"):
        assert all(Path("cut", name).stat().st_mtime_ns == stamp for name, stamp in before.items())
    ran = segment(*more, "-o", "cut/", "--resume")
    assert (ran.code, ran.out) == (0, "")
    assert "the results are there already" in ran.err
    assert contents("cut") == contents("whole")


def test_kill_9_loses_no_photo_that_was_done(segment: Run, own_files: tuple[Path, Path]) -> None:
    assert segment("--format", "coco", "-o", "whole.json").code == 0
    program = (
        "import time\n"
        "from nanosam_cli.core.inference.predictor import Predictor\n"
        "predict, calls = Predictor.predict, []\n"
        "def slow(self, *arguments, **options):\n"
        "    calls.append(1)\n"
        "    return time.sleep(60) if len(calls) == 3 else predict(self, *arguments, **options)\n"
        "Predictor.predict = slow\n"
        "from nanosam_cli.app import main\n"
        "main()\n"
    )
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "segment", "photos", *Two, *models, "--format", "coco"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    journal = Path("coco.jsonl")
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") == 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("coco.json").exists()
    journal.write_bytes(journal.read_bytes() + b'{"photo": "photos/2.png", "res')  # as a kill amid a line leaves it
    ran = segment("--format", "coco")
    assert (ran.code, ran.out) == (1, "")
    assert "coco.jsonl holds a run that was not finished --resume goes on, --force starts anew" in ran.words
    assert segment("--format", "coco", "--resume").code == 0
    assert Path("coco.json").read_bytes() == Path("whole.json").read_bytes()
    assert not journal.exists()


def test_photos_that_were_passed_over_are_tried_again(segment: Run) -> None:
    assert segment("--format", "coco", "-o", "whole.json").code == 0
    whole = Path("photos/1.png").read_bytes()
    Path("photos/1.png").write_bytes(whole[:500])
    ran = segment("--format", "coco")
    assert ran.code == 1
    assert "no result for photos/1.png --resume tries them again" in ran.words
    assert len(json.loads(Path("coco.json").read_text())) == 6
    Path("photos/1.png").write_bytes(whole)
    ran = segment("--format", "coco", "--resume")
    assert ran.code == 0, ran.err
    assert ran.out == "photos/1.png: 2 objects -> coco.json\n"
    assert Path("coco.json").read_bytes() == Path("whole.json").read_bytes()
    assert not Path("coco.jsonl").exists()


def test_nothing_is_left_of_a_run_that_did_nothing(segment: Run) -> None:
    ran = segment("--format", "coco", "--point", "500,500", "--each-point")
    assert ran.code == 2
    for path in Path("photos").iterdir():
        path.write_bytes(b"no photo")
    assert segment("--format", "coco").code == 1
    assert not list(Path().glob("coco*"))


def test_photos_may_be_added(segment: Run, cut: Cut) -> None:
    """Ids count the photos of the last run, and each stands beside its photo's name."""
    Path("photos/0.png").rename("photos/b.png")
    cut(lambda: segment("--format", "coco"))
    photo("photos/a.png")
    assert segment("--format", "coco", "--resume").code == 0
    assert segment("--format", "coco", "-o", "whole.json").code == 0
    assert Path("coco.json").read_bytes() == Path("whole.json").read_bytes()


def test_results_of_other_photos_are_not_lost(segment: Run, cut: Cut) -> None:
    cut(lambda: segment("--format", "coco"))
    before = contents(".")
    Path("photos/1.png").rename("photos/b.png")
    ran = segment("--format", "coco", "--resume")
    assert (ran.code, ran.out) == (1, "")
    assert "coco.jsonl is a run over other photos: it has photos/1.png give those too" in ran.words
    assert contents(".") == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--box", "1,2,3,40"], "boxes was [[10.0, 20.0, 60.0, 50.0], [30.0, 30.0, 70.0, 70.0]], is [[10.0"),
        (["--threshold", "0.5"], "threshold was 0.0, is 0.5"),
        (["--multimask"], "multimask was false, is true"),
    ],
)
def test_a_run_with_other_settings_is_not_gone_on_with(segment: Run, cut: Cut, more: list[str], words: str) -> None:
    cut(lambda: segment("--format", "coco"))
    before = contents(".")
    ran = segment("--format", "coco", "--resume", *more)
    assert (ran.code, ran.out) == (1, "")
    assert f"coco.jsonl is a run with other settings: {words}" in ran.words
    assert contents(".") == before


def test_a_file_of_prompts_stands_for_its_content(cut: Cut, own_files: tuple[Path, Path]) -> None:
    def segment(*more: str) -> Ran:
        models = ("--encoder", own_files[0], "--decoder", own_files[1])
        return run_nanosam("segment", "photos", "--prompts", "prompts.json", "--format", "coco", *models, *more)

    entries = {f"{number}.png": {"boxes": [[10, 20, 60, 50]]} for number in range(4)}
    Path("prompts.json").write_text(json.dumps(entries))
    cut(segment)
    Path("prompts.json").write_text(json.dumps({**entries, "3.png": {"boxes": [[1, 2, 30, 40]]}}))
    ran = segment("--resume")
    assert ran.code == 1
    assert 'prompts was "prompts.json sha256 ' in ran.words
    Path("prompts.json").write_text(json.dumps(entries))
    assert segment("--resume").code == 0


def test_what_a_kill_left_of_separate_files_is_made_anew(segment: Run) -> None:
    assert segment("--separate", "-o", "whole/").code == 0
    assert segment("--separate", "-o", "cut/").code == 0
    Path("cut/2_mask_1.png").unlink()  # the first is written last
    Path("cut/2_mask_2.png").write_bytes(b"old")
    ran = segment("--separate", "-o", "cut/", "--resume")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["photos/2.png"]
    assert contents("cut") == contents("whole")


def test_names_of_other_classes_are_not_overwritten(segment: Run, cut: Cut) -> None:
    cut(lambda: segment("--format", "yolo", "-o", "out/"))
    for other in (b"boat\n", b"\xff"):
        Path("out/classes.txt").write_bytes(other)
        ran = segment("--format", "yolo", "-o", "out/", "--resume")
        assert ran.code == 1
        assert "out/classes.txt exists already" in ran.words
        assert Path("out/classes.txt").read_bytes() == other


def test_yolo_labels_share_the_names_of_their_classes(own_files: tuple[Path, Path]) -> None:
    def run(name: str, *options: str) -> Ran:
        files = ("--encoder", own_files[0], "--decoder", own_files[1])
        return run_nanosam("segment", f"photos/{name}", *Two, *files, "--format", "yolo", "-o", "out/", *options)

    assert [run(name).code for name in ("1.png", "2.png")] == [0, 0]
    Path("out/classes.txt").write_text("boat\n")
    ran = run("1.png", "--force")
    assert ran.code == 1
    assert "out/classes.txt names other classes, and labels beside it go by it: out/2.txt" in ran.words
    assert Path("out/classes.txt").read_text() == "boat\n"
    Path("out/2.txt").unlink()
    assert run("1.png", "--force").code == 0
    assert Path("out/classes.txt").read_text() == "object\n"


# what would mix two runs

EVERY = [*([f"--format={kind}"] for kind in FORMATS), ["--separate"]]
OUTLINES = [[f"--format={kind.name}"] for kind in FORMATS.values() if kind.outlines]


def half(segment: Run, *more: str) -> dict[str, bytes]:
    """Two of the four photos are done, and the run has ended; gives what it left in out/."""
    for number in (2, 3):
        Path(f"photos/{number}.png").rename(f"{number}.png")
    ran = segment(*more, "-o", "out/")
    assert ran.code == 0, ran.err
    for number in (2, 3):
        Path(f"{number}.png").rename(f"photos/{number}.png")
    return contents("out")


@pytest.mark.parametrize("more", EVERY)
def test_finished_results_of_other_settings_are_refused(segment: Run, more: list[str]) -> None:
    before = half(segment, *more)
    ran = segment(*more, "-o", "out/", "--resume", "--threshold", "0.5")
    assert (ran.code, ran.out) == (1, "")
    assert "was made with other settings: threshold was 0.0, is 0.5 resume with its own options" in ran.words
    assert contents("out") == before


@pytest.mark.parametrize("more", OUTLINES)
def test_outlines_of_another_tolerance_are_refused(segment: Run, more: list[str]) -> None:
    before = half(segment, *more)
    ran = segment(*more, "-o", "out/", "--resume", "--simplify", "2")
    assert (ran.code, ran.out) == (1, "")
    assert "was made with other settings: simplify was 0.0, is 2.0" in ran.words
    assert contents("out") == before


@pytest.mark.parametrize("more", EVERY)
def test_results_of_a_photo_that_changed_since_are_refused(segment: Run, cut: Cut, more: list[str]) -> None:
    cut(lambda: segment(*more, "-o", "out/"))
    before = contents("out")
    Image.new("RGB", (100, 80)).save("photos/1.png")
    ran = segment(*more, "-o", "out/", "--resume")
    assert (ran.code, ran.out) == (1, "")
    assert "other photos: photos/1.png changed since" in ran.words
    assert contents("out") == before


def test_results_of_photos_of_the_same_names_are_refused(segment: Run) -> None:
    assert segment("-o", "out/").code == 0
    Path("photos").rename("first")
    Path("photos").mkdir()
    Image.new("RGB", (100, 80)).save("photos/0.png")
    ran = segment("-o", "out/", "--resume")
    assert (ran.code, ran.out) == (1, "")
    assert "out/0_mask.png was made of other photos: photos/0.png changed since `--force` to start" in ran.words


def test_photos_may_have_moved(segment: Run, cut: Cut, tmp_path: Path) -> None:
    """They are known by their content, so a run goes on from another folder too."""
    cut(lambda: segment("-o", "out/"))
    Path("work").mkdir()
    Path("photos").rename("work/photos")
    os.chdir("work")
    ran = segment("-o", tmp_path / "out", "--resume")
    assert ran.code == 0, ran.err
    assert "2 of 4 photos are done already" in ran.err


@pytest.mark.parametrize("kind", [kind.name for kind in FORMATS.values() if kind.shared])
def test_a_finished_file_of_other_photos_is_not_added_to(segment: Run, kind: str) -> None:
    half(segment, "--format", kind)
    before = contents("out")
    ran = segment("--format", kind, "-o", "out/", "--resume")
    assert (ran.code, ran.out) == (1, "")
    assert f"out/{kind}.json was made of other photos: it lacks photos/2.png, photos/3.png" in ran.words
    Path("photos/0.png").unlink()
    ran = segment("--format", kind, "-o", "out/", "--resume")
    assert "it has photos/0.png; it lacks photos/2.png, photos/3.png" in ran.words
    assert contents("out") == before


@pytest.mark.parametrize("more", EVERY)
def test_results_without_a_record_are_refused(segment: Run, more: list[str]) -> None:
    before = half(segment, *more)
    Path("out/.nanosam/results.jsonl").unlink()
    ran = segment(*more, "-o", "out/", "--resume")
    assert (ran.code, ran.out) == (1, "")
    assert "is there, and no record says what it was made with" in ran.words
    assert "remove it, `--force` to start anew" in ran.words
    assert contents("out") == before


@pytest.mark.parametrize("kind", [kind.name for kind in FORMATS.values() if not kind.shared])
def test_a_file_that_a_kill_left_amid_its_writing_is_made_anew(segment: Run, kind: str) -> None:
    assert segment("--format", kind, "-o", "whole/").code == 0
    assert segment("--format", kind, "-o", "cut/").code == 0
    record = Path("cut/.nanosam/results.jsonl")
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-1]) + lines[-1][:30])  # the last line would have said that it is whole
    name = json.loads(lines[-1])["file"]
    Path("cut", name).write_bytes(b"old")
    ran = segment("--format", kind, "-o", "cut/", "--resume")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["photos/3.png"]
    assert contents("cut") == contents("whole")
    assert "the results are there already" in segment("--format", kind, "-o", "cut/", "--resume").err


def test_a_forced_run_that_was_cut_off_is_not_mixed_with_the_one_before(segment: Run, cut: Cut) -> None:
    assert segment("-o", "out/").code == 0
    cut(lambda: segment("-o", "out/", "--force", "--threshold", "0.5"))
    assert "out/0_mask.png was made with other settings: threshold was 0.5, is 0.0" in (
        segment("-o", "out/", "--resume").words
    )
    assert "out/2_mask.png was made with other settings: threshold was 0.0, is 0.5" in (
        segment("-o", "out/", "--resume", "--threshold", "0.5").words
    )


def test_runs_over_other_photos_share_a_folder(segment: Run, own_files: tuple[Path, Path]) -> None:
    def other(*more: str) -> Ran:
        files = ("--encoder", own_files[0], "--decoder", own_files[1])
        return run_nanosam("segment", "other", "--box", "1,2,30,40", *files, "-o", "out/", *more)

    Path("other").mkdir()
    for name in ("a", "b"):
        photo(f"other/{name}.png")
    assert segment("-o", "out/").code == 0
    assert other().code == 0
    for ran in (segment("-o", "out/", "--resume"), other("--resume")):
        assert (ran.code, ran.out) == (0, ""), ran.err
        assert "the results are there already" in ran.err


def test_a_photo_alone_leaves_no_record_unless_others_have_one(own_files: tuple[Path, Path]) -> None:
    def run(box: str, *more: str) -> Ran:
        files = ("--encoder", own_files[0], "--decoder", own_files[1])
        return run_nanosam("segment", *more, "--box", box, *files, "-o", "out/")

    assert run(Box, "photos/0.png").code == 0
    assert [path.name for path in Path("out").iterdir()] == ["0_mask.png"]
    assert "no record says what it was made with" in run(Box, "photos/0.png", "--resume").words
    assert run(Box, "photos", "--force").code == 0
    assert run("1,2,30,40", "photos/0.png", "--force").code == 0
    assert "out/0_mask.png was made with other settings: boxes was [[1.0, 2.0" in run(Box, "photos", "--resume").words


def test_one_photo_after_the_other_with_resume(own_files: tuple[Path, Path]) -> None:
    files = ("--encoder", own_files[0], "--decoder", own_files[1], "-o", "out/")
    for name in ("0", "1"):
        assert run_nanosam("segment", f"photos/{name}.png", *Two, *files, "--resume").code == 0
    ran = run_nanosam("segment", "photos", *Two, *files, "--resume")
    assert (ran.code, ran.out.count("\n")) == (0, 2)


def test_lines_of_a_record_that_say_nothing_are_passed_over(segment: Run) -> None:
    assert segment("-o", "out/").code == 0
    record = Path("out/.nanosam/results.jsonl")
    whole = record.read_bytes()
    strange = [b"\xff", b"[1]", b"{}", b'{"run": 1}', b'{"run": "x", "settings": 1}', b'{"run": "x", "file": "a"}']
    record.write_bytes(b"\n".join([*strange, b"[" * 100_000, whole]))
    assert "the results are there already" in segment("-o", "out/", "--resume").err
    record.write_bytes(b'{"run": "x", "file": "0_mask.png", "photos": {}, "whole": true}\n')
    assert "no record says what it was made with" in segment("-o", "out/", "--resume").words


def test_a_record_that_cannot_be_written_is_told(segment: Run) -> None:
    Path("out").mkdir()
    Path("out/.nanosam").write_bytes(b"")
    ran = segment("-o", "out/")
    assert ran.code == 1
    assert "cannot write out/.nanosam/results.jsonl: out/.nanosam is not a directory" in ran.words
    assert [path.name for path in Path("out").iterdir()] == [".nanosam"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_a_full_disk_is_told_and_what_was_done_is_kept(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Journal.write

    def full(self: Journal, record: dict[str, Any]) -> None:
        if record.get("photo") == "photos/2.png":
            self._file.write(b'{"photo": "photos/2.png", "res')  # as much as there was room for
            self._file.close()
            self._file = Path("/dev/full").open("wb")  # noqa: SIM115
        write(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "write", full)
        ran = segment("--format", "coco")
    assert ran.code == 1
    assert "error: cannot write coco.jsonl: disk full" in ran.words
    assert "Traceback" not in ran.err
    assert len(json.loads(Path("coco.json").read_text())) == 4
    assert segment("--format", "coco", "--resume").code == 0
    assert segment("--format", "coco", "-o", "whole.json").code == 0
    assert Path("coco.json").read_bytes() == Path("whole.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--force"], "--resume goes on with a run, --force starts anew"),
        (["-"], "--resume cannot know which photo comes through a pipe"),
    ],
)
def test_what_cannot_be_gone_on_with(segment: Run, more: list[str], words: str) -> None:
    ran = segment("--resume", *more)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.words


def test_a_file_that_a_power_cut_emptied_is_made_again(segment: Run) -> None:
    """The record may reach the disk before the picture does."""
    assert segment("-o", "whole/").code == 0
    assert segment("-o", "cut/").code == 0
    Path("cut/2_mask.png").write_bytes(b"")
    ran = segment("-o", "cut/", "--resume")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["photos/2.png"]
    assert contents("cut") == contents("whole")


HELD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from nanosam_cli.core.inference.predictor import Predictor\n"
    "predict, calls = Predictor.predict, []\n"
    "def slow(self, *arguments, **options):\n"
    "    calls.append(1)\n"
    "    if len(calls) == 3:\n"
    "        print('amid', file=sys.stderr, flush=True)\n"
    "        sys.stdin.read()\n"
    "    return predict(self, *arguments, **options)\n"
    "Predictor.predict = slow\n"
    "from nanosam_cli.app import main\n"
    "main()\n"
)


@pytest.mark.parametrize("kind", ["png", "yolo", "rle"])
def test_a_second_run_in_a_folder_is_told_at_once(segment: Run, own_files: tuple[Path, Path], kind: str) -> None:
    """Whatever it is to do with what is there. Another format may go there at the same time, and a photo alone."""
    assert segment("--format", kind, "-o", "whole/").code == 0
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    with subprocess.Popen(
        [sys.executable, "-c", HELD, "segment", "photos", *Two, *models, "--format", kind, "-o", "out/"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdin is not None
        assert first.stderr is not None
        assert "amid\n" in iter(first.stderr.readline, "")
        before = contents("out")
        for more in ([], ["--resume"], ["--force"]):
            ran = segment("--format", kind, "-o", "out/", *more)
            assert (ran.code, ran.out) == (1, "")
            assert "another run is at work on out wait until it has ended" in ran.words
        assert contents("out") == before
        assert segment("--format", "overlay", "-o", "out/").code == 0
        one = run_nanosam("segment", "photos/3.png", *Two, *models, "--format", kind, "-o", "out/", "--force")
        assert one.code == 0, one.err
        first.stdin.close()
        first.stderr.read()
        assert first.wait() == 1  # of the photo that somebody else has done meanwhile
    assert segment("--format", kind, "-o", "out/", "--force").code == 0
    assert {name: data for name, data in contents("out").items() if "overlay" not in name} == contents("whole")
