"""One tracked object: where it may be, which of the decoder's answers is right, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.frame import Array
from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.tracking.appearance import KernelRegression, balanced, random_frequencies
from nanosam_cli.core.tracking.cells import (
    PARTS,
    SIDE,
    Box,
    area_of,
    cell_shares,
    connected_part,
    hanging_together,
    join_cells,
    mask_box,
    places_in,
    split_cells,
    widened,
    window_around,
)
from nanosam_cli.core.tracking.search import best_shift, likely_boxes

TEMPLATE = 1.3  # of the box: what is compared when it is looked for nearby
LEARNT = 2.0  # of the box: what is learnt of each frame
READ = 1.8  # of the box: where the object may be
UNIT = 2.0  # logits from which on a cell's answer counts fully as something to learn from
COMPARED = 3  # frames from one comparison of what was found again with other places to the next
LIKE = 0.5  # from which on a cell looks like the object
GROWN = 1.5  # times as many cells, from which on a double has been joined by something else
ROOM = 0.5  # cells that a box may grow in any case
TINY = 1e-6
SLOWLY = 0.1  # how far what is usual follows a frame


class TrackState(str, Enum):
    """How sure the tracker is of an object in a frame."""

    tracked = "tracked"
    uncertain = "uncertain"  # shown, but the memory is held; also what was just found again
    lost = "lost"  # no mask; looked for in the whole frame


@dataclass(frozen=True)
class TrackerSettings:
    """Everything that decides how objects are followed. The same values serve all models and all videos."""

    dimensions: int = 96  # of a cell's vector
    features: int = 192  # cosines of the kernel that draws masks
    look_features: int = 192  # of the one that knows the object anywhere
    cell_width: float = 1.4  # of the kernel that draws; two cells of the first frame are 1 apart on average
    place_width: float = 0.7  # of the same, in halves of the object's box
    look_width: float = 1.0  # as cell_width, of the kernel that knows the object: stricter, for doubles are near
    first_share: float = 0.5  # of the first frame in what is known, against all later ones
    decay: float = 0.85  # what a frame keeps of its weight when the next one is learnt
    look_decay: float = 0.93  # the same of what says whether it is the object at all: slower, so that it does not drift
    guard: float = 0.9  # how far cells are left unlearnt that do not look like what they are taken for
    rim: int = 1  # cells about the mask where that holds; farther off, what looks like the object is learnt as a double
    ridge: float = 1e-3
    samples: int = 400  # cells of a frame that are learnt from, at most
    foreground: float = 0.3  # of all weight that the object's own cells have
    appearance: float = 4.0  # logits of the appearance's full answer, beside the decoder's own
    reach: int = 6  # cells that an object may move from where it is expected
    still: float = 0.5  # what moving by its own size in a frame costs, squared, in likeness
    damping: float = 0.5  # of the velocity
    growth: float = 0.12  # of its sides that a box may grow in a frame
    entire: float = 0.6  # of its usual area, below which nothing is learnt: what covers it would be learnt with it
    least: float = 0.3  # of its usual area, below which an object counts as partly gone
    sure: float = 0.6  # score from which on an object is tracked
    doubt: float = 0.5  # score below which it is lost
    found: float = 0.6  # score from which on a lost object is found again
    kindred: float = 0.8  # cosine of its mean cell and the object's, below which what is found anywhere counts less
    patience: int = 5  # frames after which an object that is neither tracked nor lost is given up
    probation: int = 30  # frames in which what was found again is doubted: other places are compared with it
    switch: float = 0.1  # by which another place has to be better in that time
    proven: float = 0.75  # score from which on it counts as tracked in that time
    proposals: int = 3  # boxes that are tried when an object is looked for in the whole frame


@dataclass(frozen=True, eq=False)
class Proposal:
    """A box that the decoder is asked about, and what the appearance says about it."""

    box: Box
    expected: Box  # where the object should be at its last size
    appearance: Array  # (256, 256) from -1, background, to 1, object
    look: Array  # (h, w) about 1 where cells look like the object, whatever their place
    cells: Array  # (h, w, D) of the frame
    jump: bool = False  # whether the box is anywhere instead of near the last one


@dataclass(frozen=True, eq=False)
class Answer:
    """The best of the decoder's answers, together with the appearance."""

    proposal: Proposal
    logits: Array  # (256, 256), both together
    agreement: float  # IoU of the decoder's mask and the appearance's
    likeness: float  # of the mask's cells to the object, 1 as in the frames before
    same_kind: float  # 1 where the mask's mean cell is like the object's, less where it is something of another kind
    wholeness: float  # 1 where the mask is about as large as usual, less where it is a remnant
    predicted_iou: float

    @property
    def score(self) -> float:
        """From 0 to 1. What moves on may change; what comes from anywhere has to be like the object.

        Cells one by one tell it from its doubles, their mean from things of another kind: of the many cells of a new
        scene some look like it by chance.
        """
        likeness = min(1.0, max(0.0, self.likeness))
        if self.proposal.jump:
            return likeness * (1 + self.agreement) / 2 * self.wholeness * self.same_kind**2
        return (likeness + self.agreement) / 2 * self.wholeness


class Target:
    """One object's memory. Boxes are in cells, masks (256, 256) over the embedding's square."""

    def __init__(self, number: int, scene: Array, share: Array, settings: TrackerSettings) -> None:
        """`scene` (h, w, D) are the first frame's cells, `share` (256, 256) how much of each part is the object."""
        box = mask_box(share > 0.5)
        assert box is not None
        self.number = number
        self.state = TrackState.tracked
        self.box = box
        self._settings = settings
        self._doubted = 0  # frames of probation that are left
        self._unsure = 0  # frames in a row in which it was neither tracked nor lost
        self._random = np.random.default_rng(number)
        self._velocity = np.zeros(4)
        self._size = box[2:] - box[:2]  # when it was last seen well
        self._share = cell_shares(share)
        self._likeness = 1.0
        self._shape, self._look = _models(settings, scene.shape[2])
        self._area = float(np.count_nonzero(share > 0.5))
        self._learn(scene, share, np.ones_like(share))
        look = self._look_map(scene)
        self._likeness = float(_mean_in(share > 0.5, look))
        self._ground = _mean_in(share <= 0.5, scene)
        self._first_mean = self._mean = _mean_in(share > 0.5, scene)
        self._doubles = self._apart(look)
        self._doubled = int(np.count_nonzero(self._doubles))  # when it was last seen well

    def memory(self) -> dict[str, Any]:
        """Everything that it remembers, for `restored`."""
        return {
            **{name: getattr(self, name) for name in _REMEMBERED},
            "state": self.state.value,
            "random": self._random.bit_generator.state,
            "shape": self._shape.state(),
            "look": self._look.state(),
        }

    @staticmethod
    def restored(memory: Mapping[str, Any], settings: TrackerSettings) -> Target:
        """The target whose memory this is. KeyError or TypeError where it is none."""
        target = Target.__new__(Target)
        target._settings = settings
        for name in _REMEMBERED:
            setattr(target, name, memory[name])
        target.state = TrackState(memory["state"])
        target._random = np.random.default_rng()
        target._random.bit_generator.state = memory["random"]
        target._shape, target._look = _models(settings, len(target._mean))
        target._shape.restore(memory["shape"])
        target._look.restore(memory["look"])
        return target

    def propose(self, scene: Array, cut: bool) -> list[Proposal]:
        """Boxes to ask the decoder about: near the last one, or anywhere where the object was lost or the scene cut."""
        look = self._look_map(scene)
        self._follow_doubles(look, cut)
        if cut or self.state is TrackState.lost:
            return self._anywhere(scene, look)
        expected = self.box + self._settings.damping * self._velocity
        moved = self._follow(look, expected)
        appearance = self._appearance(scene, moved)
        near_by = Proposal(_drawn_box(appearance, moved), moved, appearance, look, scene)
        compared = self._doubted and self._doubted % COMPARED == 0
        return [near_by, *(self._anywhere(scene, look) if compared else [])]

    def choose(self, proposals: Sequence[Proposal], logits: Array, ious: Array) -> Answer:
        """The answer (P, 256, 256) that agrees best with the appearance, and the two together."""
        answers = []
        for proposal, drawn, iou in zip(proposals, logits, ious):
            agreement = mask_iou(drawn > 0, proposal.appearance > 0)
            both = drawn + self._settings.appearance * proposal.appearance
            kept = connected_part(both > 0, proposal.expected)
            both = np.where(kept, both, np.minimum(both, -1))
            likeness = float(_mean_in(kept, proposal.look)) / max(self._likeness, 1e-3)
            same_kind = self._same_kind(proposal.cells, kept)
            wholeness = min(1.0, np.count_nonzero(kept) / (self._settings.least * self._area))
            answers.append(Answer(proposal, both, agreement, likeness, same_kind, wholeness, float(iou)))
        margin = self._settings.switch if self._doubted else 0.0
        return max(answers, key=lambda answer: answer.score - margin * answer.proposal.jump)

    def settle(self, scene: Array, answer: Answer) -> TrackState:
        """Believe the answer as far as its score goes: learn from it, only move there, or give the object up."""
        settings, score = self._settings, answer.score
        box = mask_box(answer.logits > 0)
        jump, sure = answer.proposal.jump, score >= settings.sure
        self._unsure = 0 if sure else self._unsure + 1
        gone = box is None or score < (settings.found if jump else settings.doubt)
        if box is None or gone or self._unsure > settings.patience:
            self.state, self._velocity, self._doubted, self._unsure = TrackState.lost, np.zeros(4), 0, 0
            return self.state
        self._doubted = settings.probation if jump else max(0, self._doubted - 1)
        trusted = score >= (settings.proven if self._doubted else settings.sure)
        self.state = TrackState.tracked if trusted else TrackState.uncertain
        if sure:
            self._move(box, answer.proposal.expected, jump)
            self._remember(scene, answer)
        return self.state

    def _remember(self, scene: Array, answer: Answer) -> None:
        """Learn from an answer; of an object that is doubted only how it moves, not that it is the object.

        What usual is follows all the same, so that an object that shrinks for good is learnt from again.
        """
        share = (answer.logits > 0).astype(np.float32)
        self._share = cell_shares(share)
        area, usual = float(share.sum()), self._area
        if not self._doubted:
            self._area += SLOWLY * (area - usual)
        if area < self._settings.entire * usual:
            return
        self._learn(scene, share, np.minimum(np.abs(answer.logits) / UNIT, 1), answer.proposal.look)
        if not self._doubted:
            self._size = self.box[2:] - self.box[:2]
            self._doubles = self._apart(answer.proposal.look)
            self._doubled = int(np.count_nonzero(self._doubles))
            seen = float(_mean_in(share > 0.5, answer.proposal.look))
            self._likeness += SLOWLY * (seen - self._likeness)
            self._mean = self._mean + SLOWLY * (_mean_in(share > 0.5, scene) - self._mean)

    def _move(self, box: Box, expected: Box, jump: bool) -> None:
        room = self._settings.growth * np.tile(expected[2:] - expected[:2], 2) + ROOM
        low, high = np.maximum(box[:2], expected[:2] - room[:2]), np.minimum(box[2:], expected[2:] + room[2:])
        grown = np.concatenate([low, high])
        if (grown[2:] - grown[:2] > 0).all():
            box = grown
        shift = (box - self.box).reshape(2, 2).mean(axis=0)
        self._velocity = np.zeros(4) if jump else 0.5 * self._velocity + 0.5 * np.tile(shift, 2)
        self.box = box

    def _learn(self, scene: Array, share: Array, trust: Array, look: Array | None = None) -> None:
        """`share` and `trust` are (256, 256) in [0, 1]; `look` (h, w) is what the object looked like before.

        Cells in the mask and at its rim that do not look like what they are taken for are left out: learning from its
        own mistakes is how a tracker drifts. What lies apart and looks like the object is no mistake of the mask but
        something else, and to be known as that. Without `look` it is the first frame, of which everything is learnt.
        """
        hw = scene.shape[:2]
        cells = split_cells(share)[: hw[0], : hw[1]]
        trusted, inside = (cell_shares(low_res)[: hw[0], : hw[1]] for low_res in (trust, share))
        if look is not None:
            surprise = np.where(widened(inside > 0, self._settings.rim), np.abs(look.clip(0, 1) - inside), 0)
            trusted = np.asarray(trusted * (1 - self._settings.guard * surprise) ** 2, np.float32)
        near = window_around(self.box, hw, LEARNT)
        some = self._some(near, everything=look is None)
        targets = cells[near].reshape(-1, PARTS)[some]
        weights = balanced(targets.mean(axis=1), self._settings.foreground) * trusted[near].ravel()[some]
        self._shape.learn(self._inputs(scene, near, self.box)[some], targets, weights)
        if look is not None and self._doubted:
            return
        wide = _everything(scene) if look is None else window_around(self.box, hw, LEARNT, 6.0)
        some = self._some(wide, everything=look is None)
        targets = inside[wide].reshape(-1, 1)[some]
        weights = balanced(targets[:, 0], 0.5) * trusted[wide].ravel()[some]
        self._look.learn(_flat(scene[wide])[some], targets, weights)

    def _some(self, window: tuple[slice, slice], everything: bool) -> NDArray[np.intp]:
        """Which of a window's cells are learnt from: no more than `samples`, others each time."""
        count = (window[0].stop - window[0].start) * (window[1].stop - window[1].start)
        return self._random.permutation(count)[: None if everything else self._settings.samples]

    def _inputs(self, scene: Array, window: tuple[slice, slice], box: Box) -> Array:
        return np.concatenate([_flat(scene[window]), places_in(box, window)], axis=1)

    def _appearance(self, scene: Array, box: Box) -> Array:
        window = window_around(box, scene.shape[:2], READ)
        shares = self._shape.predict(self._inputs(scene, window, box))
        height, width = scene[window].shape[:2]
        return join_cells((2 * shares - 1).clip(-1.5, 1.5).reshape(height, width, PARTS), window, -1)

    def _look_map(self, scene: Array) -> Array:
        return self._look.predict(_flat(scene)).reshape(scene.shape[:2]).clip(-0.5, 1.5)

    def _apart(self, look: Array) -> Mask:
        """(h, w) cells that look like the object while it is elsewhere, and do not hang together with it: doubles."""
        like = look > LIKE
        about = widened(self._share[: look.shape[0], : look.shape[1]] > 0, 1)
        apart = like & ~hanging_together(about, like | about)
        return widened(~widened(~apart, 1), 1)  # no specks

    def _follow_doubles(self, look: Array, cut: bool) -> None:
        """Doubles move, and do not grow: what comes beside one may be the object."""
        like = (look > LIKE) & (not cut)
        moved = widened(self._doubles, 1) & like
        grown = np.count_nonzero(moved) > GROWN * self._doubled
        self._doubles = self._doubles & like if grown else moved

    def _same_kind(self, cells: Array, mask: Mask) -> float:
        """How alike a mask (256, 256) is in kind: the cosine of its mean cell and the object's, seen from the ground.

        The object's is half what it was at first and half what it was of late.
        """
        first = self._settings.first_share
        known = first * self._first_mean + (1 - first) * self._mean - self._ground
        seen = _mean_in(mask, cells) - self._ground
        cosine = float(seen @ known / max(np.linalg.norm(seen) * np.linalg.norm(known), TINY))
        return min(1.0, max(0.0, cosine) / self._settings.kindred)

    def _follow(self, look: Array, expected: Box) -> Box:
        """The last box moved to where the look map fits the last mask best."""
        rows, columns = window_around(self.box, (SIDE, SIDE), TEMPLATE)
        template = self._share[rows, columns] > 0.5
        shift = (expected - self.box).reshape(2, 2).mean(axis=0)
        still = self._settings.still / np.maximum(self.box[2:] - self.box[:2], 1)
        moved = best_shift(look, template, (rows, columns), shift, self._settings.reach, still)
        return np.asarray(self.box + np.tile(moved, 2))

    def _anywhere(self, scene: Array, look: Array) -> list[Proposal]:
        """The places of the whole frame that look most like the object, at about its last size, but for its doubles."""
        look = np.where(widened(self._doubles, 1), np.minimum(look, 0), look)
        boxes = likely_boxes(look, self._size, self._settings.proposals)
        return [Proposal(box, box, self._appearance(scene, box), look, scene, jump=True) for box in boxes]


# of a target, beside its state, its chance and its two models
_REMEMBERED = (
    *("number", "box", "_doubted", "_unsure", "_velocity", "_size", "_share", "_likeness", "_area"),
    *("_ground", "_first_mean", "_mean", "_doubles", "_doubled"),
)


def _models(settings: TrackerSettings, dimensions: int) -> tuple[KernelRegression, KernelRegression]:
    cell = np.full(dimensions, settings.cell_width)
    half = settings.features // 2  # half of the cosines know of places, half do not
    placed = np.concatenate([cell, np.full(2, settings.place_width)])
    anywhere = np.concatenate([cell, np.full(2, np.inf)])
    shape = np.concatenate([random_frequencies(placed, half, 1), random_frequencies(anywhere, half, 2)], axis=1)
    look = random_frequencies(np.full(dimensions, settings.look_width), settings.look_features, 3)
    first, ridge = settings.first_share, settings.ridge
    return (
        KernelRegression(shape, first=first, decay=settings.decay, ridge=ridge),
        KernelRegression(look, first=first, decay=settings.look_decay, ridge=ridge),
    )


def _everything(scene: Array) -> tuple[slice, slice]:
    return slice(0, scene.shape[0]), slice(0, scene.shape[1])


def _flat(cells: Array) -> Array:
    return cells.reshape(-1, cells.shape[-1])


def _mean_in(mask: Mask, cells: Array) -> Array:
    """(256, 256), (h, w, ...) -> (...), the mean of the mask's cells; 0 where it is empty."""
    height, width = cells.shape[:2]
    share = cell_shares(mask)[:height, :width]
    return np.asarray(np.tensordot(share, cells, 2) / max(float(share.sum()), TINY))


def _drawn_box(appearance: Array, box: Box) -> Box:
    """The box of what the appearance draws about `box`, or `box` where that is next to nothing."""
    drawn = mask_box(connected_part(appearance > 0, box))
    return box if drawn is None or area_of(drawn) < 0.2 * area_of(box) else drawn
