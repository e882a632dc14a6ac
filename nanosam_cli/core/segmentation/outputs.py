"""Results as files: names are decided and checked before any work starts, then written photo by photo."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import OutputError, UsageError
from nanosam_cli.core.media.find_photos import STDIN
from nanosam_cli.core.media.render import check_label_count, overlap
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.detections import CLASS_NAMES
from nanosam_cli.core.segmentation.class_files import class_files
from nanosam_cli.core.segmentation.formats import FORMATS, OutputFormat, PhotoTarget, find_format
from nanosam_cli.core.segmentation.image_ids import number_photos
from nanosam_cli.core.segmentation.result import PhotoResult
from nanosam_cli.core.segmentation.result_record import ResultRecord, photo_hashes, record_path
from nanosam_cli.core.segmentation.shared_file import SharedFile, open_shared_file
from nanosam_cli.core.system.files import check_writable, write_text
from nanosam_cli.core.system.journal import check_choice, check_free, journal_path
from nanosam_cli.core.system.lock import only_run

_FIRST = ("1", "1-1")  # how the first of a photo's separate files is numbered; see `Found.name`


@dataclass
class Outputs:
    """Where the results of a run go. Made by `plan_outputs`; photos are written while `opened`."""

    format: OutputFormat
    targets: Mapping[Path, Path]  # photo -> file; with `separate`, objects put their number before the suffix
    image_ids: Mapping[Path, int]  # for COCO
    ids_counted: bool = False  # because nothing gives them
    classes: Mapping[int, str] = field(default_factory=dict)  # names of category ids, for YOLO
    separate: bool = False
    force: bool = False
    simplify: float = 0.0  # pixels, of outlines; see `mask_to_polygons`
    resume: bool = False
    grey: bool = False  # labels without colours
    _record: ResultRecord | None = None
    _shared: SharedFile | None = None
    _done: set[Path] = field(default_factory=set)
    _left: set[Path] = field(default_factory=set)  # files in which a killed run may have left something

    @property
    def done(self) -> set[Path]:
        """Photos that an earlier run has done, which `resume` leaves as they are."""
        return self._done if self._shared is None else self._shared.done

    @property
    def are_there(self) -> bool:
        """Whether `resume` has nothing left to do, and no journal to finish."""
        return self._shared is None and self._done == self.targets.keys()

    @property
    def _is_recorded(self) -> bool:
        """A photo alone needs no record, unless that of others would say something else of its file."""
        return self.resume or len(self.targets) > 1 or record_path(self._folder).exists()

    @property
    def _folder(self) -> Path:
        return next(iter(self.targets.values())).parent

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other run writes the same there: a photo's file, or files of this format in the folder. What photos share
        is locked with its journal."""
        if self.format.shared:
            yield
            return
        (first, *more), folder = self.targets.values(), self._folder
        with only_run(folder, folder / f".{self.format.name}.lock") if more or self.resume else only_run(first):
            yield

    def _find_done(self, record: ResultRecord) -> set[Path]:
        """Photos whose results are whole and of this run; see `ResultRecord.covers` for those of others."""
        first = next(iter(self.targets.values()))
        if self.format.shared:  # of which the journal, while there is one, says what is in it
            is_finished = first.exists() and not journal_path(first).exists()
            return {*self.targets} if is_finished and record.covers(first, self.targets) else set()
        there = {photo: file for photo, file in self.targets.items() if self._is_whole(file)}
        whole = {photo: file for photo, file in there.items() if not self._is_lost(file)}
        done = {photo for photo, file in whole.items() if record.covers(self._entry(file), [photo])}
        self._left = {file for photo, file in there.items() if photo not in done}
        return done

    def _is_whole(self, file: Path) -> bool:
        """Whether a photo's results are all there: of `separate` ones, the first is written last."""
        return any(one.exists() for one in ([_numbered(file, name) for name in _FIRST] if self.separate else [file]))

    def _is_lost(self, file: Path) -> bool:
        """Whether a power cut left the name alone. Of YOLO's files, which may be empty, it does not; see `_yolo`."""
        return not self.format.class_names and file.exists() and not file.stat().st_size

    def _entry(self, file: Path) -> Path:
        """What the record calls a photo's results."""
        return _numbered(file, "*") if self.separate else file

    @contextmanager
    def opened(self, settings: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Start, or with `resume` go on with, what all photos share: the COCO file, or the names of YOLO's classes.

        `settings` decide the masks. They are asked for where several photos make a run that can be gone on with.

        Raises:
            OutputError: a file cannot be written, has the names of other classes, `resume` finds no record of it, or
                another run is at work there.
            InputError: what `resume` finds was made with other settings or of other photos.
        """
        with self._locked():
            yield from self._started(settings)

    def _started(self, settings: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        first = next(iter(self.targets.values()))
        made_with: Mapping[str, Any] = {}
        if self._is_recorded or self.format.shared:
            written = {"format": self.format.name, "separate": self.separate, "simplify": self.simplify}
            made_with = {**settings(), **written, **({"grey": True} if self.grey else {})}
        if self._is_recorded:
            self._record = ResultRecord(self._folder, made_with)
        if self.resume and self._record:
            self._done = self._find_done(self._record)
        if self.format.class_names:
            for place, text in class_files(first.parent, self.classes, list(self.targets)).items():
                write_text(place, text, self.force)
        if self.format.layout is None or self._done:
            yield
            return
        target = PhotoTarget(first, self.resume or self.force, simplify=self.simplify, classes=self.classes)
        layout = self.format.layout
        with open_shared_file(target, layout, self.image_ids, made_with, self.resume, self._record) as self._shared:
            yield

    def check_free(self) -> None:
        """OutputError where another run is at work there."""
        with self._locked():
            pass

    def write(self, result: PhotoResult) -> None:
        """Write one photo's files and note their names in the result; a shared file is written at the end."""
        with result.watch("write"):
            target = self.targets[result.photo]
            result.files = [target]
            if self._shared is not None:
                self._shared.add(result)
                return
            with self._recorded(target, result.photo):
                if not self.separate:
                    self._write(target, result)
                    return
                result.files = [_numbered(target, one.name) for one in result.found]
                for file, one in reversed([*zip(result.files, result.found)]):  # the first says that all are there
                    self._write(file, replace(result, found=[one]))

    def _recorded(self, file: Path, photo: Path) -> AbstractContextManager[None]:
        return self._record.writing(self._entry(file), photo_hashes([photo])) if self._record else nullcontext()

    def _write(self, file: Path, result: PhotoResult) -> None:
        assert self.format.write is not None
        overwrite = self.force or file in self._left or (self.resume and self.separate)  # what a killed run has left
        self.format.write(PhotoTarget(file, overwrite, self.separate, self.simplify, self.classes, self.grey), result)

    def check_count(self, objects: int) -> None:
        """UsageError where a photo has more objects than its file can hold, before they are segmented."""
        if self.format.flat and not self.separate:
            check_label_count(objects)

    def loses(self, result: PhotoResult) -> bool:
        """Whether masks overlap in a label PNG, which can give a pixel to one object only."""
        return self.format.flat and not self.separate and overlap(result.masks)


def plan_outputs(
    photos: Sequence[Path],
    format: str = "png",
    output: str | None = None,
    separate: bool = False,
    force: bool = False,
    classes: Mapping[int, str] | None = None,
    simplify: float | None = None,
    resume: bool = False,
    read: Sequence[Path] = (),
    image_ids: Mapping[Path, int] | None = None,
    grey: bool = False,
) -> Outputs:
    """Decide every file name and check them all, so that no work is lost to a name.

    `output` is a directory where it is one, ends with a slash, or has to hold several files; else a file. Without it,
    files go to the working directory. `classes` names the category ids that objects may have. `simplify`, in
    pixels, is for outlines. With `resume`, photos whose files are there count as done. `read` are other files, and
    folders of files, that the run reads. `image_ids` are the photos' numbers in the file that gave the prompts. `grey`
    leaves the colours out of label PNGs.

    Raises:
        UsageError: options do not go together, two photos would write one file, a file that is read would be
            overwritten, or the suffix does not fit.
        OutputError: files exist and neither `force` nor `resume` is asked for, the labels of other photos go by other
            YOLO classes, or a place cannot be written.
    """
    check_choice(resume, force)
    if resume and STDIN in photos:
        raise UsageError("--resume cannot know which photo comes through a pipe", "give files or folders instead of -")
    kind = find_format(format)
    _check_options(kind, separate, simplify, grey)
    single = len(photos) == 1 or kind.shared
    place = Path(output or "")
    folder = output is None or output.endswith(("/", os.sep)) or place.is_dir()
    if not folder and not single and place.suffix.lower() == kind.suffix:
        raise UsageError(f"{place} cannot hold the results of {len(photos)} photos", f"-o {place.stem}/")
    directory = folder or not single
    names = _names(photos, kind)
    targets = {photo: place / names[photo] if directory else place for photo in photos}
    if not directory and place.suffix.lower() != kind.suffix:
        raise UsageError(
            f"--format {format} writes {kind.suffix} files, not {place.suffix or 'one without a suffix'}: {place}",
            f"-o {place.with_suffix(kind.suffix)}, -o {place}/ for a folder, or another --format",
        )
    if not kind.shared:
        _check_clashes(targets)
    folders = {file.parent for file in targets.values()} if kind.class_names else set()
    shared = {file for one in folders for file in class_files(one, classes or {}, photos)}
    files = sorted({*targets.values(), *shared})
    _check_read(files, photos, read)
    ids, counted = number_photos(photos, image_ids or {})
    outputs = Outputs(kind, targets, ids, counted, classes or {}, separate, force, simplify or 0.0, resume, grey)
    if not force and not resume:
        if kind.shared:
            check_free(journal_path(files[0]))
        if old := [old for file in files for old in _existing(file, separate and file not in shared)]:
            outputs.check_free()
            _refuse_existing(old, single)
    if force:
        _check_classes({file for file in shared if file.name == CLASS_NAMES}, targets)
    for parent in {file.parent for file in files}:
        check_writable(parent)
    return outputs


def _check_options(kind: OutputFormat, separate: bool, simplify: float | None, grey: bool) -> None:
    if grey and not kind.flat:
        raise UsageError(f"--format {kind.name} has no labels, so it takes no --grey", "--format png")
    if kind.shared and separate:
        raise UsageError(f"--format {kind.name} writes one file for all photos, so it takes no --separate")
    if simplify is not None and not kind.outlines:
        others = [other.name for other in FORMATS.values() if other.outlines]
        raise UsageError(
            f"--format {kind.name} has no outlines, so it takes no --simplify", f"--format {' or '.join(others)}"
        )


def _names(photos: Sequence[Path], kind: OutputFormat) -> dict[Path, str]:
    """File names by the photos' stems, or by their whole names where stems are alike: a.jpg_mask.png, a.png_mask.png.

    Not so without an ending, because YOLO and labelme know a photo's file by its stem.
    """
    if kind.shared:
        return dict.fromkeys(photos, f"{kind.ending}{kind.suffix}")
    starts = {photo: "stdin" if photo == STDIN else photo.stem for photo in photos}
    count = Counter(starts.values())
    alike = {photo for photo, start in starts.items() if count[start] > 1 and photo != STDIN}
    if kind.ending:
        starts |= {photo: photo.name for photo in alike}
    return {photo: f"{start}{kind.ending}{kind.suffix}" for photo, start in starts.items()}


def _check_clashes(targets: Mapping[Path, Path]) -> None:
    sources = defaultdict(list)
    for photo, target in targets.items():
        sources[target].append(photo)
    for target, photos in sources.items():
        if len(photos) > 1:
            raise UsageError(
                f"{some(photos)} would all be written to {target}",
                "rename one of them, or run them apart, each with its own `-o FOLDER/`",
            )


def _check_read(files: Sequence[Path], photos: Sequence[Path], read: Sequence[Path]) -> None:
    """UsageError where a file would overwrite one that the run reads."""
    inputs = {photo.resolve(): "a photo" for photo in photos}
    for path in read:
        inputs |= dict.fromkeys([one.resolve() for one in (path.iterdir() if path.is_dir() else [path])], "a file")
    for file in files:
        if what := inputs.get(file.resolve()):
            raise UsageError(f"{file} would overwrite {what} that is read", "give another place with `-o`")


def _check_classes(places: Collection[Path], targets: Mapping[Path, Path]) -> None:
    """OutputError where labels of other photos go by the names of classes that would be overwritten."""
    for place in places:
        others = {*place.parent.glob("*.txt")} - {place, *targets.values()} if place.exists() else ()
        if others:
            raise OutputError(
                f"{place} names other classes, and labels beside it go by it: {some(sorted(others))}",
                "give another place with `-o`",
            )


def _refuse_existing(files: Sequence[Path], single: bool) -> None:
    count = "" if len(files) == 1 else f"{len(files)} files: "
    more = "" if single else "`--resume` to do what is left, "
    raise OutputError(
        f"{count}{some(files)} exist{'s' if len(files) == 1 else ''} already; nothing was done",
        f"add `--force` to overwrite, {more}or give another place with `-o`",
    )


def _numbered(file: Path, name: str) -> Path:
    return file.with_name(f"{file.stem}_{name}{file.suffix}")


def _existing(file: Path, separate: bool) -> list[Path]:
    if not separate:
        return [file] if file.exists() or file.is_symlink() else []
    numbered = re.compile(rf"{re.escape(file.stem)}_\d+(-\d+)?{re.escape(file.suffix)}")
    return sorted(old for old in file.parent.glob("*") if numbered.fullmatch(old.name))
