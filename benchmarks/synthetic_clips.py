"""Clips made from photos, with their true masks: objects that hide, leave, are cut away, and come back.

Each object of the example photos is cut out and moved over another photo, slowly turning and changing its size. While
it is gone nothing of it is in the picture; what counts is how soon it is found again, and what is claimed meanwhile.
In two more scenarios it stays: another object of its kind crosses behind it, or it turns, grows and changes its light
before an unsteady camera. `--photos` takes objects and grounds from a data set instead, drawn by `--seed`.

python benchmarks/synthetic_clips.py [--photos DIR --count 8 --seed 0] [--prompt box] [--save DIR] [--nvidia]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nanosam_tracker import NvidiaFollower
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli import load_predictor, read_image
from nanosam_cli.core.datasets.coco import read_coco
from nanosam_cli.core.evaluation.davis_measures import region_similarity
from nanosam_cli.core.evaluation.followers import Follower, TrackerFollower
from nanosam_cli.core.media.image import write_png
from nanosam_cli.core.media.render import PALETTE

HW = 320, 512
FRAMES, GONE, BACK = 54, 16, 28  # it is gone from about frame GONE to about frame BACK
EXAMPLES = Path(__file__).parents[1] / "examples"
PATIENCE = 5  # frames within which an object should be found again
FOUND = 0.5  # IoU from which on it is found
VISIBLE = 0.5  # share of it that has to be in the picture before it counts as back, and 0 as gone

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Clip:
    name: str
    scenario: str
    frames: Sequence[Picture]
    masks: Sequence[Mask]
    whole: Sequence[int]  # pixels that the object would have without occlusion

    def share(self, frame: int) -> float:
        """How much of the object is in the picture."""
        return float(self.masks[frame].sum() / max(1, self.whole[frame]))


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object without its photo."""

    name: str
    rgba: Image.Image
    photo: Path
    category: int = 0

    def placed(self, centre: tuple[float, float], size: float, angle: float) -> tuple[Picture, Mask, int]:
        """Over an empty picture: colours, where they count, and the object's pixels wherever they lie."""
        scale = size / max(self.rgba.size)
        small = self.rgba.resize([max(2, round(side * scale)) for side in self.rgba.size], Image.Resampling.LANCZOS)
        small = small.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        layer = Image.new("RGBA", HW[::-1])
        layer.paste(small, (round(centre[0] - small.width / 2), round(centre[1] - small.height / 2)))
        whole = int((np.asarray(small)[..., 3] > 127).sum())
        pixels = np.asarray(layer)
        return pixels[..., :3], pixels[..., 3] > 127, whole


def cut_outs(annotations: Path, images: Path | None = None) -> Iterator[CutOut]:
    """Every object that lies wholly in its photo, is large enough to be seen when cut out, and is no crowd."""
    for photo in read_coco(annotations, images):
        image: Picture | None = None
        for target in photo.objects:
            mask = target.mask()
            y, x = np.nonzero(mask)
            rim = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            if target.iscrowd or (images is None and (rim or len(y) < 0.03 * mask.size)):
                continue
            image = read_image(photo.path) if image is None else image
            window = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
            rgba = np.dstack([image, mask.astype(np.uint8) * 255])[window]
            picture = Image.fromarray(np.ascontiguousarray(rgba))
            yield CutOut(f"{photo.path.stem}-{target.id}", picture, photo.path, target.category_id)


def look_alike(cut_out: CutOut) -> CutOut:
    """The same object mirrored, darker and of a somewhat other hue."""
    rgba = np.asarray(cut_out.rgba).astype(float)[:, ::-1]
    rgba[..., :3] = (rgba[..., [1, 0, 2]] * 0.5 + rgba[..., :3] * 0.5) * 0.75
    return CutOut("look-alike", Image.fromarray(rgba.astype(np.uint8)), cut_out.photo, cut_out.category)


def background(photo: Picture, frame: int) -> Picture:
    """A photo, panned slowly."""
    image = Image.fromarray(photo)
    scale = max((HW[1] + 60) / image.width, (HW[0] + 20) / image.height)
    large = np.asarray(
        image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    )
    left = min(frame, large.shape[1] - HW[1])
    return large[: HW[0], left : left + HW[1]].copy()


Place = Callable[[int], tuple[float, float]]


def crossing(frame: int) -> tuple[float, float]:
    """From left to right through the picture."""
    return 60 + 8 * frame, 170 + 10 * np.sin(frame / 4)


def leaving(frame: int) -> tuple[float, float]:
    """Out at the right side and, some frames later, in again there at another height."""
    if frame < (GONE + BACK) / 2:
        return 260 + 25 * frame, 150
    return 260 + 25 * max(0, BACK + 10 - frame), 190


def standing(frame: int) -> tuple[float, float]:
    return (180 + 2 * frame, 160) if frame < GONE else (380 - 2 * (frame - BACK), 170)


def unsteady(frame: int) -> tuple[float, float]:
    return 150 + 4 * frame + 12 * np.sin(1.7 * frame), 160 + 8 * np.cos(2.3 * frame)


PLACES: dict[str, Place] = {
    "occluded": crossing,
    "leaving": leaving,
    "cut": standing,
    "look-alike": leaving,
    "crossed": lambda frame: (200 + 2 * frame, 160),
    "changing": unsteady,
}
LOSSES = ("occluded", "leaving", "cut", "look-alike")


def make_clip(cut_out: CutOut, double: CutOut, scenario: str, photo: Picture, other: Picture) -> Clip:
    """One of the scenarios in PLACES. `double` is what could be taken for the object."""
    changing = scenario == "changing"
    frames, masks, wholes = [], [], []
    for frame in range(FRAMES):
        cut_away = scenario == "cut" and GONE <= frame < BACK
        picture = background(other if cut_away else photo, frame)
        if scenario in ("look-alike", "crossed"):
            beside = (110 + frame, 160) if scenario == "look-alike" else (480 - 9 * frame, 175)
            colours, there, _ = double.placed(beside, 130, 0)
            picture[there] = colours[there]
        size, angle = (90 + 2 * frame, 20 * np.sin(frame / 8)) if changing else (130 + frame / 2, 4 * np.sin(frame / 5))
        colours, there, whole = cut_out.placed(PLACES[scenario](frame), size, angle)
        there = there & (not cut_away)
        picture[there] = colours[there]
        if scenario == "occluded":  # a board in the colours of the other photo
            board = slice(190, 350)
            picture[:, board] = background(other, 0)[:, board]
            there[:, board] = False
        if changing:
            picture = np.asarray(picture * (1 - 0.4 * np.sin(frame / 12) ** 2), np.uint8)
        frames.append(picture)
        masks.append(there)
        wholes.append(whole)
    return Clip(f"{cut_out.name}-{scenario}", scenario, frames, masks, wholes)


def make_clips(scenarios: Sequence[str] = tuple(PLACES)) -> Iterator[Clip]:
    """Every object of the examples in every scenario, never over its own photo."""
    photos = {name: read_image(EXAMPLES / f"{name}.jpg") for name in ("coffee", "rocket", "photographer", "cat")}
    for number, cut_out in enumerate(cut_outs(EXAMPLES / "instances.json", EXAMPLES)):
        names = [name for name in photos if name != cut_out.photo.stem]
        photo, other = (photos[names[(number + step) % len(names)]] for step in (0, 1))
        for scenario in scenarios:
            yield make_clip(cut_out, look_alike(cut_out), scenario, photo, other)


def drawn_clips(folder: Path, count: int, seed: int, scenarios: Sequence[str] = tuple(PLACES)) -> Iterator[Clip]:
    """`count` objects of a data set (images/ and instances.json), each in every scenario; doubles are of its category
    where it has another."""
    random = np.random.default_rng(seed)
    pool = list(cut_outs(folder / "instances.json"))
    for index in random.permutation(len(pool))[:count]:
        cut_out = pool[index]
        alike = [other for other in pool if other.category == cut_out.category and other.photo != cut_out.photo]
        grounds = [other.photo for other in pool if other.category != cut_out.category]
        photo, other = (read_image(grounds[number]) for number in random.integers(len(grounds), size=2))
        double = alike[random.integers(len(alike))] if alike else look_alike(cut_out)
        for scenario in scenarios:
            yield make_clip(cut_out, double, scenario, photo, other)


@dataclass(frozen=True)
class Outcome:
    """What became of an object."""

    scenario: str
    before: float  # mean IoU until it went, or over the whole clip where it stays
    claimed: float | None = None  # share of the frames without it in which a mask was shown all the same
    found_after: int | None = None  # frames from its return to a mask of IoU FOUND; None where it never was
    after: float | None = None  # mean IoU from PATIENCE frames after its return on


def follow(clip: Clip, follower: Follower) -> list[Mask]:
    first = follower.start(clip.frames[0], clip.masks[0][None])
    return [first[0].mask, *(follower.step(frame)[0].mask for frame in clip.frames[1:])]


def judge(clip: Clip, masks: Sequence[Mask]) -> Outcome:
    ious = [region_similarity(mask, truth) for mask, truth in zip(masks, clip.masks)]
    gone = [frame for frame in range(FRAMES) if clip.share(frame) == 0]
    if not gone:
        return Outcome(clip.scenario, float(np.mean(ious[1:])))
    back = next(frame for frame in range(gone[-1], FRAMES) if clip.share(frame) >= VISIBLE)
    found = next((frame for frame in range(back, FRAMES) if ious[frame] >= FOUND), None)
    return Outcome(
        clip.scenario,
        float(np.mean(ious[1 : gone[0]])),
        float(np.mean([masks[frame].any() for frame in gone])),
        None if found is None else found - back,
        float(np.mean(ious[back + PATIENCE :])),
    )


def save(clip: Clip, folder: Path) -> None:
    """As `nanosam eval davis` and `nanosam track` read it."""
    for number, (frame, mask) in enumerate(zip(clip.frames, clip.masks)):
        (folder / clip.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(folder / clip.name / f"{number:05}.jpg", quality=95)
        write_png(folder / clip.name / f"{number:05}.png", mask.astype(np.uint8), PALETTE, overwrite=True)


def mean_of(outcomes: Sequence[Outcome], key: str) -> str:
    values = [value for outcome in outcomes if (value := getattr(outcome, key)) is not None]
    return f"{np.mean(values):.3f}" if values else ""


def report(name: str, outcomes: Sequence[Outcome]) -> None:
    print(f"\n{name}\n\n| scenario | clips | found within {PATIENCE} | IoU before | IoU after | claimed while gone |")
    print("|---|---|---|---|---|---|")
    for label, scenarios in {**{scenario: (scenario,) for scenario in PLACES}, "all losses": LOSSES}.items():
        rows = [outcome for outcome in outcomes if outcome.scenario in scenarios]
        if not rows:
            continue
        soon = sum(row.found_after is not None and row.found_after <= PATIENCE for row in rows)
        found = f"{soon} of {len(rows)}" if scenarios[0] in LOSSES else ""
        means = " | ".join(mean_of(rows, key) for key in ("before", "after", "claimed"))
        print(f"| {label} | {len(rows)} | {found} | {means} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a data set: images/ and instances.json")
    parser.add_argument("--count", type=int, default=8, help="objects drawn from it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", choices=tuple(PLACES), action="append")
    parser.add_argument("--prompt", choices=("mask", "box"), default="mask")
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the clips there, for looking at")
    parser.add_argument("--nvidia", action="store_true", help="NVIDIA NanoSAM's tracker too")
    parser.add_argument("--json", action="store_true", help="one line a clip")
    options = parser.parse_args()
    scenarios = options.scenario or tuple(PLACES)
    clips = (
        drawn_clips(options.photos, options.count, options.seed, scenarios) if options.photos else make_clips(scenarios)
    )
    with load_predictor(encoder=options.encoder, decoder=options.decoder) as predictor:
        followers: list[Follower] = [TrackerFollower(predictor, options.prompt, name="nanosam track")]
        if options.nvidia:
            followers.append(NvidiaFollower(predictor, keep=0.995, prompt=options.prompt))
        outcomes: dict[str, list[Outcome]] = {follower.name: [] for follower in followers}
        for clip in clips:
            if options.save:
                save(clip, options.save)
            for follower in followers:
                outcome = judge(clip, follow(clip, follower))
                outcomes[follower.name].append(outcome)
                if options.json:
                    print(json.dumps({"clip": clip.name, "tracker": follower.name, **vars(outcome)}), flush=True)
    for name, found in outcomes.items():
        report(name, found)


if __name__ == "__main__":
    main()
