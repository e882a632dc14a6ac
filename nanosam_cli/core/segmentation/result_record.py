"""What results were made of, and how: kept in a hidden folder beside them, so that `--resume` mixes no two runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.media.find_photos import STDIN
from nanosam_cli.core.messages import some
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import file_sha256, output_error
from nanosam_cli.core.system.journal import differences

FOLDER = ".nanosam"  # beside the results
ANEW = "`--force` to start anew, or give another place with `-o`"

Photos = Mapping[str, str | None]  # path -> SHA-256; None of one that came through a pipe


@dataclass(frozen=True)
class _Made:
    """What one file of results was made of."""

    run: str
    photos: Photos
    whole: bool  # whether it was written to the end


class ResultRecord:
    """`.nanosam/results.jsonl`: a line for the settings of each run, and two for each file of results.

    The first is written before the file and the second after it, so a kill leaves no file of which nothing is known.
    The last line of a file counts. Lines are only added, so runs over other photos may share the folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there; `settings`, plain values for JSON, are those of the run that starts now."""
        self.path = record_path(folder)
        self._settings = settings
        self._run = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._runs: dict[str, Any] = {}
        self._made: dict[str, _Made] = {}
        self._is_cut_off = False  # whether a kill left half a line
        for line in self._lines():
            if "settings" in line:
                self._runs[line["run"]] = line["settings"]
            else:
                self._made[line["file"]] = _Made(line["run"], line["photos"], line["whole"])

    def covers(self, file: Path, photos: Iterable[Path]) -> bool:
        """Whether a file that is there is this run's, of just these photos; False where a kill came amid its writing.

        Raises:
            OutputError: nothing says what it was made of.
            InputError: it was made with other settings or of other photos, which are named.
        """
        made = self._made.get(file.name)
        if made is None or made.run not in self._runs:
            raise OutputError(
                f"{file} is there, and no record says what it was made with, so --resume cannot go on from it",
                f"remove it, {ANEW}",
            )
        if not made.whole:
            return False
        if changed := differences(self._runs[made.run], self._settings):
            raise InputError(f"{file} was made with other settings: {changed}", f"resume with its own options, {ANEW}")
        if others := other_photos(made.photos, photo_hashes(photos)):
            raise InputError(f"{file} was made of other photos: {others}", ANEW)
        return True

    @contextmanager
    def writing(self, file: Path, photos: Photos) -> Iterator[None]:
        """Note a file before and after it is written. OutputError where the record cannot be written."""
        self._note(file, photos, whole=False)
        yield
        self._note(file, photos, whole=True)

    def _note(self, file: Path, photos: Photos, whole: bool) -> None:
        lines: list[Mapping[str, Any]] = [{"file": file.name, "run": self._run, "photos": photos, "whole": whole}]
        if self._run not in self._runs:
            lines.insert(0, {"run": self._run, "settings": self._settings})
            self._runs[self._run] = self._settings
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as record:
                record.write(f"\n{text}".encode() if self._is_cut_off else text.encode())
        except OSError as error:
            raise output_error(self.path, error) from error
        self._is_cut_off = False

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The lines that say something; a kill may have cut one off."""
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise output_error(self.path, error) from error
        self._is_cut_off = bool(content) and not content.endswith(b"\n")
        for text in content.splitlines():
            try:
                line = parse_json(text)
            except ValueError:
                continue
            if _is_line(line):
                yield line


def record_path(folder: Path) -> Path:
    """Where the record of the results in a folder lies."""
    return folder / FOLDER / "results.jsonl"


def photo_hashes(photos: Iterable[Path]) -> dict[str, str | None]:
    """What tells photos from others of their name."""
    return {str(photo): None if photo == STDIN else file_sha256(photo) for photo in photos}


def other_photos(before: Photos, now: Photos) -> str:
    """In words, which photos of before are not those of now, whatever their folders; nothing where all are."""
    gone, new = _left_over(before, now), _left_over(now, before)
    changed = [path for path in gone if path in new]
    parts = {
        "{} changed since": changed,
        "it has {}": [path for path in gone if path not in changed],
        "it lacks {}": [path for path in new if path not in changed],
    }
    return "; ".join(words.format(some(paths)) for words, paths in parts.items() if paths)


def _left_over(photos: Photos, others: Photos) -> list[str]:
    """Photos without one of their name and content among the others; each of those stands for one."""
    free = Counter((Path(path).name, content) for path, content in others.items())
    left = []
    for path, content in photos.items():
        if free[key := (Path(path).name, content)]:
            free[key] -= 1
        else:
            left.append(path)
    return left


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("run"), str):
        return False
    if "settings" in line:
        return isinstance(line["settings"], dict)
    types = {"file": str, "photos": dict, "whole": bool}
    return all(isinstance(line.get(key), kind) for key, kind in types.items())
