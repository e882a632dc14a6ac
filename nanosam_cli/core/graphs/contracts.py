"""A model's files in the contracts of other tools, ONNX to ONNX: what they scale and normalise goes into the graph.

`sam` is the mask decoder of segment-anything's `scripts/export_onnx_model.py`; `samexporter` the image encoder that
samexporter writes, which takes a photo's pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from nanosam_cli.core.frame import COORDINATE_SIZE, SAM_MEAN, SAM_STD
from nanosam_cli.core.graphs.splice import put_before, put_behind

# `Frame.masks_to_original`, with its rounding: `int(side * scale + 0.5)` in whole numbers
_MASKS = """
behind (float[P, K, 256, 256] low_res_masks, float[2] orig_im_size) => (float[P, K, H, W] masks) {
    photo = Cast <to = 7> (orig_im_size)
    longest = ReduceMax <keepdims = 1> (photo)
    to_input = Mul (photo, photo_to_input)
    to_input_rounded = Add (to_input, longest)
    twice_longest = Add (longest, longest)
    resized = Div (to_input_rounded, twice_longest)
    resized_some = Max (resized, one_pixel)
    to_frame = Mul (resized_some, input_to_frame)
    to_frame_rounded = Add (to_frame, input_side)
    covered = Div (to_frame_rounded, twice_input_side)
    covered_some = Max (covered, one_pixel)
    low_sides = Shape (low_res_masks)
    low_shape = Slice (low_sides, first_side, third_side)
    square_shape = Concat <axis = 0> (low_shape, frame_sides)
    square = Resize <mode = "linear"> (low_res_masks, , , square_shape)
    within = Slice (square, corner, covered_some, mask_axes)
    photo_shape = Concat <axis = 0> (low_shape, photo)
    masks = Resize <mode = "linear"> (within, , , photo_shape)
}
"""


def sam_decoder(decoder: ModelProto, image_size: int) -> ModelProto:
    """A mask decoder that also takes `orig_im_size` (height, width) and gives `masks` at that size, first of three."""
    constants = {
        "photo_to_input": np.array([2 * image_size], np.int64),
        "input_to_frame": np.array([2 * COORDINATE_SIZE], np.int64),
        "input_side": np.array([image_size], np.int64),
        "twice_input_side": np.array([2 * image_size], np.int64),
        "one_pixel": np.array([1], np.int64),
        "frame_sides": np.array([COORDINATE_SIZE, COORDINATE_SIZE], np.int64),
        "first_side": np.array([0], np.int64),
        "third_side": np.array([2], np.int64),
        "corner": np.array([0, 0], np.int64),
        "mask_axes": np.array([2, 3], np.int64),
    }
    return put_behind(decoder, _MASKS, ("masks", "iou_predictions", "low_res_masks"), constants)


# (S, pixels) weights of one axis: the share of each pixel that a cell of the model's input covers, or bilinear weights
# where pixels are larger than cells. Pillow's triangle, by which this project resizes a photo, would blur a second time
# what the client has resized already: masks of the example photos agree with 0.9955 so, and with 0.9925 by a triangle.
# `ratio` is pixels a cell; how many cells the `used` pixels get is rounded as `Frame.input_hw` does.
_AXIS = """
    {axis}_pixel_numbers = Range (zero, {axis}_total, one)
    {axis}_pixels = Cast <to = 1> ({axis}_pixel_numbers)
    {axis}_used_float = Cast <to = 1> ({axis}_used)
    {axis}_exact_cells = Div ({axis}_used_float, ratio)
    {axis}_more_cells = Add ({axis}_exact_cells, half)
    {axis}_whole_cells = Floor ({axis}_more_cells)
    {axis}_cells = Max ({axis}_whole_cells, unit)
    {axis}_ratio = Div ({axis}_used_float, {axis}_cells)
    {axis}_reach = Max ({axis}_ratio, unit)
    {axis}_half_reach = Mul ({axis}_reach, half)
    {axis}_farthest = Add ({axis}_half_reach, half)
    {axis}_centres = Mul (cell_centres, {axis}_ratio)
    {axis}_places = Sub ({axis}_centres, half)
    {axis}_apart = Sub ({axis}_places, {axis}_pixels)
    {axis}_distance = Abs ({axis}_apart)
    {axis}_overlap = Sub ({axis}_farthest, {axis}_distance)
    {axis}_covered = Clip ({axis}_overlap, nothing, unit)
    {axis}_is_used = Less ({axis}_pixels, {axis}_used_float)
    {axis}_used_weight = Cast <to = 1> ({axis}_is_used)
    {axis}_raw = Mul ({axis}_covered, {axis}_used_weight)
    {axis}_sum = ReduceSum ({axis}_raw, last_axis)
    {axis}_sum_some = Max ({axis}_sum, tiny)
    {axis}_share = Div ({axis}_raw, {axis}_sum_some)
    {axis}_is_inside = Less (cell_starts, {axis}_cells)
    {axis}_inside = Cast <to = 1> ({axis}_is_inside)
    {axis}_weights = Mul ({axis}_share, {axis}_inside)
"""

_PIXELS = """
before (float[image_height, image_width, 3] input_image) => (float[1, 3, S, S] normalised_image) {{
    picture_shape = Shape (input_image)
    rows_total = Gather <axis = 0> (picture_shape, zero)
    columns_total = Gather <axis = 0> (picture_shape, one)
{used}
{rows}{columns}
    planes = Transpose <perm = [2, 0, 1]> (input_image)
    thin = MatMul (rows_weights, planes)
    columns_turned = Transpose <perm = [1, 0]> (columns_weights)
    small = MatMul (thin, columns_turned)
    columns_inside_turned = Transpose <perm = [1, 0]> (columns_inside)
    inside = Mul (rows_inside, columns_inside_turned)
    mean_inside = Mul (mean, inside)
    centred = Sub (small, mean_inside)
    scaled = Div (centred, deviation)
    normalised_image = Unsqueeze (scaled, zero_axis)
}}
"""

_WHOLE_PICTURE = """
    rows_used = Identity (rows_total)
    columns_used = Identity (columns_total)
    ratio = Identity (frame_ratio)
"""


def pixels_text(used: str) -> str:
    """The graph from pixels to an encoder's input; `used` computes `rows_used`, `columns_used` and `ratio`."""
    axes = {axis: _AXIS.format(axis=axis) for axis in ("rows", "columns")}
    return _PIXELS.format(used=used, **axes)


def pixel_constants(
    image_size: int, mean: tuple[float, float, float] = SAM_MEAN, std: tuple[float, float, float] = SAM_STD
) -> dict[str, NDArray[Any]]:
    """What `pixels_text` refers to."""
    cells = np.arange(image_size, dtype=np.float32)[:, None]
    return {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "zero_axis": np.array([0], np.int64),
        "last_axis": np.array([1], np.int64),
        "cell_starts": cells,
        "cell_centres": cells + np.float32(0.5),
        "half": np.array(0.5, np.float32),
        "unit": np.array(1, np.float32),
        "nothing": np.array(0, np.float32),
        "tiny": np.array(1e-9, np.float32),
        "frame_ratio": np.array(COORDINATE_SIZE / image_size, np.float32),
        "mean": np.array(mean, np.float32)[:, None, None],
        "deviation": np.array(std, np.float32)[:, None, None],
    }


def samexporter_encoder(
    encoder: ModelProto,
    image_size: int,
    mean: tuple[float, float, float] = SAM_MEAN,
    std: tuple[float, float, float] = SAM_STD,
) -> ModelProto:
    """An image encoder that takes `input_image` (H, W, 3), RGB from 0 to 255, of at most 1,024 pixels a side.

    Its pixels are those of the coordinate frame: a photo resized so that its longest side is 1,024. Where the model
    works on less, the graph resizes it by areas, normalises and pads.
    """
    text, constants = pixels_text(_WHOLE_PICTURE), pixel_constants(image_size, mean, std)
    return put_before(encoder, text, {"image": "normalised_image"}, constants)
