"""The pair of files that AnyLabeling and X-AnyLabeling take as a model of type `segment_anything`.

Both draw a photo into the top left of a black picture of 684 x 1,024 pixels, whatever its shape (`sam_onnx.py`), so a
portrait covers but a part of it. The encoder finds what is not black and gives that the whole of the model's square, as
`Frame` does; two more channels of its embedding tell the decoder how large it was. The decoder takes points in the
picture's pixels and gives the one mask that `nanosam segment` would choose, at the picture's size.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.frame import COORDINATE_SIZE, SAM_MEAN, SAM_STD, Array
from nanosam_cli.core.graphs.contracts import pixel_constants, pixels_text
from nanosam_cli.core.graphs.splice import Constants, put_before, put_behind

# How many rows and columns from the top left have a pixel that is not black
_USED = "".join(
    f"""
    {axis}_light = ReduceSum <keepdims = 0> (input_image, {axis}_others)
    {axis}_is_lit = Greater ({axis}_light, nothing)
    {axis}_lit = Cast <to = 7> ({axis}_is_lit)
    {axis}_end = Add ({axis}_total, one)
    {axis}_numbers = Range (one, {axis}_end, one)
    {axis}_lit_numbers = Mul ({axis}_lit, {axis}_numbers)
    {axis}_last = ReduceMax <keepdims = 0> ({axis}_lit_numbers)
    {axis}_used = Max ({axis}_last, one)
"""
    for axis in ("rows", "columns")
)
_PHOTO = (
    _USED
    + """
    longest = Max (rows_used, columns_used)
    longest_float = Cast <to = 1> (longest)
    ratio = Div (longest_float, side)
    rows_plane = Unsqueeze (rows_used, zero_axis)
    columns_plane = Unsqueeze (columns_used, zero_axis)
    used_sides = Concat <axis = 0> (rows_plane, columns_plane)
    photo_hw = Cast <to = 1> (used_sides)
"""
)
_SIZE_CHANNELS = """
behind (float[1, 256, 64, 64] image_embeddings, float[2] photo_hw) => (float[1, 258, 64, 64] embeddings_and_size) {
    planes = Reshape (photo_hw, planes_shape)
    filled = Expand (planes, planes_full)
    embeddings_and_size = Concat <axis = 1> (image_embeddings, filled)
}
"""


def anylabeling_encoder(
    encoder: ModelProto,
    image_size: int,
    mean: tuple[float, float, float] = SAM_MEAN,
    std: tuple[float, float, float] = SAM_STD,
) -> ModelProto:
    """`input_image` (H, W, 3) -> (1, 258, 64, 64): the embedding, and height and width of the photo in it as planes."""
    constants = {
        **pixel_constants(image_size, mean, std),
        "rows_others": np.array([1, 2], np.int64),
        "columns_others": np.array([0, 2], np.int64),
        "side": np.array(image_size, np.float32),
    }
    text = pixels_text(_PHOTO).replace("normalised_image) {", "normalised_image, float[2] photo_hw) {")
    pixels = put_before(encoder, text, {"image": "normalised_image"}, constants)
    shapes = {"planes_shape": np.array([1, 2, 1, 1], np.int64), "planes_full": np.array([1, 2, 64, 64], np.int64)}
    return put_behind(pixels, _SIZE_CHANNELS, ("embeddings_and_size",), shapes)


_SIZE = """
before (float[1, 258, 64, 64] image_embeddings, float[1, N, 2] point_coords)
    => (float[1, 256, 64, 64] features, float[1, N, 2] frame_coords, float[2] photo_hw) {
    features = Slice (image_embeddings, no_channel, size_channel, channel_axis)
    sides = Slice (image_embeddings, sides_start, sides_end)
    photo_hw = Reshape (sides, two)
    longest = ReduceMax <keepdims = 0> (photo_hw)
    to_frame = Div (frame_side, longest)
    frame_coords = Mul (point_coords, to_frame)
}
"""
_ALWAYS_BEST = "\n    chosen = Identity (best)"
_BEST_OF_A_CLICK = """
    real = Greater (point_labels, padding)
    real_numbers = Cast <to = 7> (real)
    points = ReduceSum <keepdims = 0> (real_numbers)
    is_click = Equal (points, one)
    chosen = Where (is_click, best, first_mask)
"""
# (pixels, 256) weights of one axis: `Frame.masks_to_original` from the mask to the square to the photo. Pixels beside
# the photo repeat its edge, as the tool interpolates across it.
_MASK_AXIS = """
    {axis}_float = Gather <axis = 0> (photo_hw, {axis}_place)
    {axis}_total = Gather <axis = 0> (picture_hw, {axis}_place)
    {axis}_exact = Mul ({axis}_float, to_input)
    {axis}_more = Add ({axis}_exact, half)
    {axis}_whole = Floor ({axis}_more)
    {axis}_cells = Max ({axis}_whole, unit)
    {axis}_covered_exact = Mul ({axis}_cells, input_to_frame)
    {axis}_covered_more = Add ({axis}_covered_exact, half)
    {axis}_covered = Floor ({axis}_covered_more)
    {axis}_scale = Div ({axis}_covered, {axis}_float)
    {axis}_numbers = Range (zero, {axis}_total, one)
    {axis}_numbers_float = Cast <to = 1> ({axis}_numbers)
    {axis}_centres = Add ({axis}_numbers_float, half)
    {axis}_scaled = Mul ({axis}_centres, {axis}_scale)
    {axis}_places = Sub ({axis}_scaled, half)
    {axis}_last = Sub ({axis}_covered, unit)
    {axis}_clipped = Clip ({axis}_places, nothing, {axis}_last)
    {axis}_column = Unsqueeze ({axis}_clipped, last_axis)
    {axis}_apart = Sub ({axis}_column, square_places)
    {axis}_distance = Abs ({axis}_apart)
    {axis}_slope = Sub (unit, {axis}_distance)
    {axis}_shares = Max ({axis}_slope, nothing)
    {axis}_weights = MatMul ({axis}_shares, upscale)
"""
_ONE_MASK = """
behind (float[1, K, 256, 256] low_res_masks, float[1, K] iou_predictions, float[1, N] point_labels,
    float[2] photo_hw, float[2] orig_im_size)
    => (float[1, 1, H, W] masks, float[1, 1] iou_prediction, float[1, 1, 256, 256] low_res_mask) {{
    readings = Slice (iou_predictions, first_reading, all_readings, last_axis)
    best_reading = ArgMax <axis = 1, keepdims = 0> (readings)
    best = Add (best_reading, first_reading){chosen}
    low_res_mask = Gather <axis = 1> (low_res_masks, chosen)
    iou_prediction = Gather <axis = 1> (iou_predictions, chosen)
    picture_hw = Cast <to = 7> (orig_im_size)
    longest = ReduceMax <keepdims = 0> (photo_hw)
    to_input = Div (side, longest)
{rows}{columns}
    tall = MatMul (rows_weights, low_res_mask)
    columns_turned = Transpose <perm = [1, 0]> (columns_weights)
    masks = MatMul (tall, columns_turned)
}}
"""


def anylabeling_decoder(decoder: ModelProto, image_size: int) -> ModelProto:
    """The decoder behind `anylabeling_encoder`: one prompt, points in pixels of the picture, one mask of its size."""
    before: Constants = {
        "no_channel": np.array([0], np.int64),
        "size_channel": np.array([256], np.int64),
        "channel_axis": np.array([1], np.int64),
        "sides_start": np.array([0, 256, 0, 0], np.int64),
        "sides_end": np.array([1, 258, 1, 1], np.int64),
        "two": np.array([2], np.int64),
        "frame_side": np.array(COORDINATE_SIZE, np.float32),
    }
    renamed = {"image_embeddings": "features", "point_coords": "frame_coords"}
    sized = put_before(decoder, _SIZE, renamed, before)
    first = 1 if _masks(decoder) == 4 else 0
    behind: Constants = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "rows_place": np.array(0, np.int64),
        "columns_place": np.array(1, np.int64),
        "last_axis": np.array([1], np.int64),
        "padding": np.array(-0.5, np.float32),
        "first_mask": np.array([0], np.int64),
        "first_reading": np.array([first], np.int64),
        "all_readings": np.array([1 << 30], np.int64),
        "half": np.array(0.5, np.float32),
        "unit": np.array(1, np.float32),
        "nothing": np.array(0, np.float32),
        "side": np.array(image_size, np.float32),
        "input_to_frame": np.array(COORDINATE_SIZE / image_size, np.float32),
        "square_places": np.arange(COORDINATE_SIZE, dtype=np.float32)[None],
        "upscale": _upscale(),
    }
    axes = {axis: _MASK_AXIS.format(axis=axis) for axis in ("rows", "columns")}
    text = _ONE_MASK.format(chosen=_BEST_OF_A_CLICK if first else _ALWAYS_BEST, **axes)
    return put_behind(sized, text, ("masks", "iou_prediction", "low_res_mask"), behind)


def _upscale() -> Array:
    """(1024, 256) bilinear weights from a mask to the square."""
    places = np.clip((np.arange(COORDINATE_SIZE) + 0.5) / 4 - 0.5, 0, 255)
    return np.asarray(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(256))), np.float32)


def _masks(decoder: ModelProto) -> int:
    """K of the file."""
    sides = next(value.type.tensor_type.shape.dim for value in decoder.graph.output if value.name == "low_res_masks")
    if len(sides) != 4 or not sides[1].dim_value:
        raise ModelError("the mask decoder does not say how many masks it gives a prompt", "export it again")
    return int(sides[1].dim_value)
