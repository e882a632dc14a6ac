"""A mask decoder that works in the frame of each prompt's own box.

SAM's decoder attends from a few tokens to all 4,096 cells of the embedding for every prompt. Here each prompt first
gets a box (given, or read from its mask or its clicks), a window around it is cut out of the embedding onto a fixed
grid, and a small U-Net decides what in it is the object. Scale and place are then the same for the network whatever the
photo, so it learns from little data, and a prompt costs a tenth of SAM's. The file contract is SAM's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.click_reader import ClickReader
from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, conv_norm
from nanosam_cli.core.modeling.listening import MOST_GIVEN, ClickPlaces, Listening, click_discs, lay_over
from nanosam_cli.core.modeling.prediction import CELL, LOW_RES, MASKS, NORM_EPS, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows, inside_windows, paste_windows

MARGIN = 0.15  # of the box, on each side of the window
GUESS_MARGIN = 0.4  # the same around a box that was read under clicks, and may be too small
FAR = 1e4  # boxes squared: a bump there is exactly nothing
FINER = 2  # points of the training window of a decoder that listens, a point of its grid: outlines are learned there
MAX_LOGIT = 5.0  # masks are averaged when they are pasted: a side that is surer than the other would grow


class ImageMaps(NamedTuple):
    """What the decoder makes of an embedding once, whatever the prompts."""

    context: Tensor  # (1 or P, C, h, w)
    detail: Tensor  # (1 or P, D, 4h, 4w)
    clicks: Tensor  # (1 or P, E, h, w) for the click reader
    edges: Tensor  # (1 or P, F, 4h, 4w) for outlines; F = 0 where the decoder does not listen


class RegionDecoder(nn.Module):
    """`image_embeddings`, prompts -> `iou_predictions` (P, 4), `low_res_masks` (P, 4, 256, 256).

    One that `listens` begins at the mask it is given and follows clicks closely; see `listening`.
    """

    def __init__(
        self, *, context: int = 96, detail: int = 12, width: int = 64, grid: int = 24, listens: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        self.context = nn.Conv2d(EMBEDDING_CHANNELS, context, 1)
        self.detail = nn.Conv2d(EMBEDDING_CHANNELS, detail * 16, 1)  # folded 4 x 4: unfolded to 256 x 256
        self.clicks = ClickReader(sees_masks=listens)
        self.prior_scale = nn.Parameter(torch.tensor(3.0))
        self.click_prior_scale = nn.Parameter(torch.tensor(1.0))  # a box that was only guessed says less

        wide, deep = 2 * width, 3 * width
        self.texture = conv_norm(detail + _EDGE_CHANNELS, width // 2, 3)
        self.down0 = conv_norm(width // 2, width, 3, 2, activation=False)
        self.enter = conv_norm(context + _PROMPT_CHANNELS, width, 3, activation=False)
        self.key = nn.Conv2d(width, 32, 1)
        self.mix = conv_norm(width + 2, width, 3)
        self.down1 = nn.Sequential(conv_norm(width, wide, 3, 2), conv_norm(wide, wide, 3))
        self.down2 = nn.Sequential(conv_norm(wide, deep, 3, 2), conv_norm(deep, deep, 3))
        self.attend = GridAttention(deep, heads=4)
        self.up1 = nn.ConvTranspose2d(deep, wide, 2, 2)
        self.merge1 = conv_norm(wide, wide, 3)
        self.up2 = nn.ConvTranspose2d(wide, width, 2, 2)
        self.merge2 = conv_norm(width, width, 3)
        self.up3 = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.refine = nn.Sequential(conv_norm(width // 2, width // 2, 3), conv_norm(width // 2, width // 2, 3))
        self.masks = nn.Conv2d(width // 2, MASKS, 1)
        self.listening = Listening(width // 2) if listens else None
        self.iou = nn.Sequential(nn.Linear(deep + MASKS, 64), nn.ReLU(inplace=True), nn.Linear(64, MASKS))
        with torch.no_grad():  # training starts at the prior; readings differ a little, for equal ones would stay so
            self.masks.weight[0] = 0
            self.masks.weight[1:] *= 0.1
            self.masks.bias = nn.Parameter(torch.tensor([0.0, -1.0, 0.0, 1.0]))

    def forward(
        self,
        image_embeddings: Tensor,  # (1, 256, h, w)
        point_coords: Tensor,  # (P, N, 2) frame units
        point_labels: Tensor,  # (P, N)
        mask_input: Tensor,  # (P, 1, 4h, 4w)
        has_mask_input: Tensor,  # (P,)
    ) -> tuple[Tensor, Tensor]:
        """The file contract: -> (P, 4), (P, 4, 4h, 4w)."""
        maps = self.prepare(image_embeddings)
        prediction = self.decode(maps, point_coords, point_labels, mask_input, has_mask_input)
        assert prediction.low_res is not None
        return prediction.ious, prediction.low_res

    def predict_windows(self, image_embeddings: Tensor, prompts: Prompts, focus: Tensor) -> WindowPrediction:
        """For training: P prompts over B photos' embeddings, on windows of the decoder's own choice (not `focus`)."""
        return self.predict_prepared(self.prepare(image_embeddings), prompts)

    def predict_prepared(self, maps: ImageMaps, prompts: Prompts) -> WindowPrediction:
        """The same from what `prepare` made of the B photos."""
        maps = ImageMaps(*(part.index_select(0, prompts.owner) for part in maps))
        found = self.decode(maps, *prompts[1:])
        assert found.low_res is not None
        # losses see what users get, which is all that is left of a small object after the low-resolution masks
        side = found.logits.shape[-1] * (FINER if self.listening else 1)
        return found._replace(logits=crop_windows(found.low_res, found.windows / LOW_RES, side))

    def prepare(self, image_embeddings: Tensor) -> ImageMaps:
        """What does not depend on the prompt, of embeddings (B, 256, h, w)."""
        detail = F.pixel_shuffle(self.detail(image_embeddings), 4)
        edges = detail[:, :0] if self.listening is None else self.listening.prepare(image_embeddings)
        return ImageMaps(self.context(image_embeddings), detail, self.clicks.context(image_embeddings), edges)

    def decode(
        self,
        maps: ImageMaps,  # of one photo, or of each prompt's
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> WindowPrediction:
        """All prompts at once, each on its own window."""
        mask = _shown(mask_input, has_mask_input) if self.listening else None
        reading = self.clicks(maps.clicks, point_coords, point_labels, mask)
        click_box, click_logits, click_window = (part.detach() for part in reading.best())
        boxes, given, guessed = _prompt_boxes(
            point_coords, point_labels, click_box, mask_input, has_mask_input, reads_masks=mask is not None
        )
        sides = boxes[:, 2:] - boxes[:, :2]
        unsure = guessed if self.listening is None else _unsure(given, point_labels)
        margin = (MARGIN + (GUESS_MARGIN - MARGIN) * unsure[:, None]) * sides + CELL
        windows = torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)

        side = 2 * self.grid
        place2 = _box_relative(boxes, windows, side)  # (P, 2, 2G, 2G)
        prior2 = _ellipse(place2)
        pixels = crop_windows(maps.detail, windows * (4 / CELL), side)
        edge = torch.cat([place2, prior2, _border(place2)], dim=1).clamp(-2, 2)
        finest = self.texture(torch.cat([pixels, edge.to(pixels.dtype)], dim=1))  # (P, 32, 2G, 2G)
        heard = None
        if self.listening is not None and mask is not None:
            heard = _heard(boxes, windows, side, point_coords, point_labels, mask)
            finest = finest + self.listening.draw(torch.cat([(heard.given / 4).tanh(), heard.discs], dim=1))

        place = _box_relative(boxes, windows, self.grid)  # (P, 2, G, G)
        prior = _ellipse(place)
        region = crop_windows(maps.context, windows / CELL, self.grid)
        hint = guessed.reshape(-1, 1, 1, 1) * _laid_over(click_logits, click_window, windows, self.grid)
        hint = hint + has_mask_input.reshape(-1, 1, 1, 1) * crop_windows(mask_input, windows / LOW_RES, self.grid)
        prompts = self._prompt_maps(
            boxes, given, place, prior, hint.div(4).tanh(), point_coords, point_labels, has_mask_input
        )
        entered = self.enter(torch.cat([region, prompts.to(region.dtype)], dim=1))
        fine = F.relu(entered + self.down0(finest))  # (P, 64, G, G)
        fine = self.mix(torch.cat([fine, self._similarity(fine, prior, place).to(fine.dtype)], dim=1))
        middle = self.down1(fine)  # (P, 128, G / 2, G / 2)
        coarse = self.attend(self.down2(middle))  # (P, 192, G / 4, G / 4)
        middle = self.merge1(middle + self.up1(coarse))
        fine = self.merge2(fine + self.up2(middle))

        finest = self.refine(finest + self.up3(fine))
        prior_scale = self.prior_scale + (self.click_prior_scale - self.prior_scale) * guessed
        start = prior_scale.reshape(-1, 1, 1, 1) * prior2.clamp(min=-1)
        if self.listening is not None and heard is not None:
            start = self.listening.begin(start, heard.given, heard.begun, heard.discs)
        raw = self.masks(finest).float() + start
        logits = MAX_LOGIT * (raw / MAX_LOGIT).tanh()

        share = logits.detach().sigmoid().mean(dim=(2, 3))  # how full each mask is
        ious = self.iou(torch.cat([coarse.float().mean(dim=(2, 3)), share], dim=1)).float().sigmoid()
        low_res_hw = (mask_input.shape[-2], mask_input.shape[-1])
        if self.listening is None or heard is None:
            low_res = paste_windows(logits, windows / LOW_RES, low_res_hw, -MAX_LOGIT)
            return WindowPrediction(logits, ious, windows, reading, low_res)
        return self._finish(WindowPrediction(logits, ious, windows, reading), self.listening, heard, maps, finest)

    def _finish(
        self, found: WindowPrediction, listening: Listening, heard: Heard, maps: ImageMaps, finest: Tensor
    ) -> WindowPrediction:
        """The masks at their own resolution, outlined and with every click obeyed."""
        low_res_hw = (heard.mask.shape[-2], heard.mask.shape[-1])
        windows = found.windows / LOW_RES
        slopes = paste_windows(listening.slopes(finest).float(), windows, low_res_hw, 0)
        base = listening.outlines(maps.edges.float(), slopes, heard.mask)
        # the mask comes back at its own resolution: what the grid made of it goes out
        changes = found.logits - listening.mask_scale * heard.given
        low_res, ignored = lay_over(changes, windows, base, -MAX_LOGIT, heard.places)
        return found._replace(low_res=low_res, ignored=ignored)

    def _similarity(self, region: Tensor, prior: Tensor, place: Tensor) -> Tensor:
        """How like each cell is to the mean of the prior's inside, and of the box's outside: (P, 2, G, G)."""
        keys = self.key(region).float()
        keys = F.normalize(keys.flatten(2), dim=1, eps=NORM_EPS)  # (P, 32, G * G)
        inside = (prior * 4).sigmoid().flatten(2)  # (P, 1, G * G)
        outside = (_border(place) < 0).to(keys.dtype).flatten(2)
        weights = torch.cat([inside, outside], dim=1)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-3)
        means = weights @ keys.transpose(1, 2)  # (P, 2, 32)
        return (means @ keys).reshape(-1, 2, self.grid, self.grid) * 4

    def _prompt_maps(
        self,
        boxes: Tensor,
        given: Tensor,
        place: Tensor,
        prior: Tensor,
        hint: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        has_mask_input: Tensor,
    ) -> Tensor:
        """Everything the prompt says, drawn on the window: (P, _PROMPT_CHANNELS, G, G)."""
        size = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=1) / 128).log()  # (P, 2) about zero for a middling object
        constants = torch.cat([size, given[:, None], has_mask_input[:, None].to(size.dtype)], dim=1)
        constants = constants[:, :, None, None].expand(-1, -1, self.grid, self.grid)
        clicks = _click_maps(boxes, place, point_coords, point_labels)
        shape = torch.cat([place.clamp(-2, 2), prior.clamp(-2, 1), _border(place).clamp(-1, 1)], dim=1)
        return torch.cat([shape, constants, hint, clicks], dim=1)


_EDGE_CHANNELS = 2 + 1 + 1  # place, ellipse, border
_PROMPT_CHANNELS = _EDGE_CHANNELS + 4 + 1 + 4  # constants, hint, clicks


class Heard(NamedTuple):
    """What a prompt says besides its box, where outlines are made."""

    begun: Tensor  # (P, 1, 1, 1) whether a mask is given that has a pixel
    mask: Tensor  # (P, 1, h, w) its logits within the window; 0 beyond it and where none is given
    given: Tensor  # (P, 1, 2G, 2G) the same on the window
    discs: Tensor  # (P, 2, 2G, 2G) foreground and background clicks
    places: ClickPlaces  # the same on the masks


def _shown(mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
    """Logits of the given masks, 0 where there is none or one without a pixel: (P, 1, h, w)."""
    filled = (mask_input.amax(dim=(1, 2, 3)) > 0).to(mask_input.dtype)
    begun = (has_mask_input.reshape(-1).to(filled.dtype) * filled).reshape(-1, 1, 1, 1)
    return begun * mask_input.clamp(-MOST_GIVEN, MOST_GIVEN)


def _heard(boxes: Tensor, windows: Tensor, side: int, coords: Tensor, labels: Tensor, mask: Tensor) -> Heard:
    begun = (mask.amax(dim=(1, 2, 3), keepdim=True) > 0).to(mask.dtype)
    given = crop_windows(mask, windows / LOW_RES, side)
    low_res_hw = (mask.shape[-2], mask.shape[-1])
    inside = mask * inside_windows(windows / LOW_RES, low_res_hw)
    places = ClickPlaces.of(boxes, coords, labels, low_res_hw)
    return Heard(begun, inside, given, click_discs(windows, side, coords, labels), places)


def _unsure(given: Tensor, labels: Tensor) -> Tensor:
    """(P,) 1 where clicks are not held together by a box: a mask that was made of them may be too small, too."""
    clicked = ((labels == 1) | (labels == 0)).to(given.dtype).amax(dim=1)
    return clicked * (1 - given)


class GridAttention(nn.Module):
    """Self-attention over a small map's cells, so that distant parts of one object can agree."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, grid: Tensor) -> Tensor:
        """(P, C, G, G) -> the same."""
        prompts, channels, height, width = grid.shape
        tokens = grid.flatten(2).transpose(1, 2)  # (P, G * G, C)
        split = self.qkv(self.norm(tokens)).reshape(prompts, height * width, 3, self.heads, channels // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (P, heads, G * G, C / heads)
        scores = (query @ key.transpose(2, 3)) * (channels // self.heads) ** -0.5
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(prompts, height * width, channels)
        attended: Tensor = self.out(mixed)
        return grid + attended.transpose(1, 2).reshape(prompts, channels, height, width)


def _laid_over(logits: Tensor, window: Tensor, windows: Tensor, side: int) -> Tensor:
    """Coarse logits (P, 1, g, g) on `window` (P, 4), sampled on `windows` (P, 4): (P, 1, side, side), 0 outside."""
    points = (window[:, 2:] - window[:, :2]).repeat(1, 2) / logits.shape[-1]  # frame units a coarse point
    return crop_windows(logits, (windows - window[:, :2].repeat(1, 2)) / points, side)


def _prompt_boxes(
    coords: Tensor,
    labels: Tensor,
    click_box: Tensor,
    mask_input: Tensor,
    has_mask_input: Tensor,
    *,
    reads_masks: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One box a prompt, frame units (P, 4); whether the user gave it and whether clicks alone did, (P,) as 0 or 1.

    The given box; else the mask prompt's extent and the foreground points; else what was read under the clicks, and
    their extent; a prompt of none of these means the whole square. Where the clicks were read with a look at the mask
    (`reads_masks`), that comes before the mask's extent, which may be too large, or too small.
    """
    whole = mask_input.shape[-1] * LOW_RES
    top_left = (labels == 2).to(coords.dtype)[:, :, None]
    bottom_right = (labels == 3).to(coords.dtype)[:, :, None]
    corners = torch.cat([(coords * top_left).sum(dim=1), (coords * bottom_right).sum(dim=1)], dim=1)
    given = top_left.amax(dim=(1, 2))  # (P,)

    foreground = (labels == 1).to(coords.dtype)[:, :, None]  # (P, N, 1)
    count = foreground.sum(dim=1)  # (P, 1)
    lowest = (coords + (1 - foreground) * 1e6).amin(dim=1)
    highest = (coords - (1 - foreground) * 1e6).amax(dim=1)
    by_points = torch.cat([torch.minimum(click_box[:, :2], lowest), torch.maximum(click_box[:, 2:], highest)], dim=1)

    filled = (mask_input > 0).to(coords.dtype)
    x0, x1 = _extent(filled.amax(dim=2).flatten(1))
    y0, y1 = _extent(filled.amax(dim=3).flatten(1))
    extent = torch.stack([x0, y0, x1, y1], dim=1) * LOW_RES
    by_mask = torch.cat([torch.minimum(extent[:, :2], lowest), torch.maximum(extent[:, 2:], highest)], dim=1)

    by_nothing = coords.new_tensor([0.0, 0.0, 1.0, 1.0]) * whole
    has_mask = (has_mask_input.reshape(-1).to(coords.dtype) * (x1 > x0).to(coords.dtype))[:, None]
    has_points = (count > 0).to(coords.dtype)
    boxes = has_points * by_points + (1 - has_points) * by_nothing
    tells = has_mask * (1 - has_points) if reads_masks else has_mask  # whether the mask's extent is the box
    boxes = tells * by_mask + (1 - tells) * boxes
    boxes = given[:, None] * corners + (1 - given[:, None]) * boxes.clamp(min=0, max=whole)
    low = boxes[:, :2]
    guessed = (has_points * (1 - has_mask))[:, 0] * (1 - given)
    return torch.cat([low, torch.maximum(boxes[:, 2:], low + LOW_RES)], dim=1), given, guessed


def _extent(filled: Tensor) -> tuple[Tensor, Tensor]:
    """(P, n) of 0 and 1 -> first set position and one past the last, each (P,); 0 and 0 where none is set."""
    positions = torch.arange(filled.shape[1], device=filled.device, dtype=filled.dtype)
    last = (filled * (positions + 1)).amax(dim=1)
    first = filled.shape[1] - (filled * (filled.shape[1] - positions)).amax(dim=1)
    return torch.minimum(first, last), last


def _box_relative(boxes: Tensor, windows: Tensor, side: int) -> Tensor:
    """Where each window point lies in its box: (P, 2, side, side) of u v, -1 and 1 at the box's sides."""
    steps = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    points = windows[:, :2, None] + (windows[:, 2:] - windows[:, :2])[:, :, None] * steps  # (P, 2, side)
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    relative = (points - centres[:, :, None]) / halves[:, :, None]
    u = relative[:, 0, None, :].expand(-1, side, -1)
    v = relative[:, 1, :, None].expand(-1, -1, side)
    return torch.stack([u, v], dim=1)


def _ellipse(place: Tensor) -> Tensor:
    """> 0 inside the box's inscribed ellipse, 1 at its centre: (P, 2, G, G) -> (P, 1, G, G)."""
    return 1 - place.square().sum(dim=1, keepdim=True)


def _border(place: Tensor) -> Tensor:
    """> 0 inside the box, 1 at its centre: (P, 2, G, G) -> (P, 1, G, G)."""
    return 1 - place.abs().amax(dim=1, keepdim=True)


def _click_maps(boxes: Tensor, place: Tensor, coords: Tensor, labels: Tensor) -> Tensor:
    """Foreground and background points as bumps, narrow and wide in units of the box: (P, 4, G, G)."""
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    points = (coords - centres[:, None]) / halves[:, None]  # (P, N, 2)
    across = (place[:, None, 0] - points[:, :, 0, None, None]).square()
    down = (place[:, None, 1] - points[:, :, 1, None, None]).square()
    squared = across + down  # (P, N, G, G)
    maps = []
    for label in (1, 0):
        elsewhere = (labels != label).to(coords.dtype)[:, :, None, None] * FAR
        nearest = (squared + elsewhere).amin(dim=1)
        maps += [(-nearest / spread).exp() for spread in (0.02, 0.4)]
    return torch.stack(maps, dim=1)
