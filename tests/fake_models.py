"""Tiny ONNX files that follow the two-file contract, so that tests need no weights.

The encoder averages the image down to 64x64. The decoder draws each prompt: its box, or a square of 80 frame pixels
around its (mean) foreground point, or the mask it is given. Mask k is the drawing shrunk by 16 k frame pixels on every
side; a predicted IoU is that of `ious` plus the mean of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nanosam_cli.core.inference.session import Session

IOUS = (0.5, 0.7, 0.9, 0.8)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    elem_type: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "fake",
        [helper.make_tensor_value_info(name, elem_type, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, elem_type, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_encoder(
    path: Path, *, size: int = 128, batch: int | str = "B", side: int | str | None = None, metadata: bool = True
) -> Path:
    """An image encoder of input side `size`; `side` is what the file declares instead, such as a dynamic side."""
    weights = np.zeros((256, 3, 1, 1), np.float32)
    weights[np.arange(256), np.arange(256) % 3] = 1
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[size // 64] * 2, strides=[size // 64] * 2),
        helper.make_node("Conv", ["small", "weights"], ["image_embeddings"]),
    ]
    props = {"nanosam.model": "fake", "nanosam.part": "encoder", "nanosam.image_size": str(size)} if metadata else {}
    declared = size if side is None else side
    inputs = {"image": (batch, 3, declared, declared)}
    return save(path, nodes, inputs, {"image_embeddings": (batch, 256, 64, 64)}, {"weights": weights}, props)


def save_decoder(
    path: Path,
    *,
    prompts: int | str = "P",
    points: int | str = "N",
    ious: Sequence[float] = IOUS,
    metadata: Mapping[str, str] | None = None,
    mask_prompts: int | str | None = None,
    reverse_inputs: bool = False,
) -> Path:
    """A mask decoder with K = len(ious)."""
    mask_prompts = prompts if mask_prompts is None else mask_prompts
    centres = (np.arange(256, dtype=np.float32) + 0.5) * 4  # of the low-resolution cells, in the 1024 frame
    count = len(ious)
    constants: dict[str, Any] = {
        "x": centres.reshape(1, 1, 1, 256),
        "y": centres.reshape(1, 1, 256, 1),
        "shrink": 16 * np.arange(count, dtype=np.float32).reshape(1, count, 1, 1),
        "ious": np.array([ious], np.float32),
        "forty": np.float32(40),
        "one": np.float32(1),
        "zero": np.float32(0),
        "two": np.float32(2),
        "three": np.float32(3),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "axes23": np.array([2, 3], np.int64),
        "column": np.array([-1, 1, 1, 1], np.int64),
    }
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, *inputs: str, to: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [to], **attributes))
        return to

    def marked(name: str, label: str) -> tuple[str, str]:
        """Sum of the coordinates that carry `label` (P, 2), and how many there are (P, 1)."""
        op("Equal", "point_labels", label, to=f"{name}_is")
        nodes.append(helper.make_node("Cast", [f"{name}_is"], [f"{name}_flat"], to=TensorProto.FLOAT))
        op("Unsqueeze", f"{name}_flat", "axis2", to=f"{name}_weight")
        op("Mul", "point_coords", f"{name}_weight", to=f"{name}_each")
        return (
            op("ReduceSum", f"{name}_each", "axis1", to=f"{name}_xy", keepdims=0),
            op("ReduceSum", f"{name}_weight", "axis1", to=f"{name}_count", keepdims=0),
        )

    top_left, boxes = marked("top_left", "two")
    bottom_right, _ = marked("bottom_right", "three")
    point, number = marked("point", "one")
    op("Max", number, "one", to="number")
    op("Div", point, "number", to="centre")
    op("Sub", "one", boxes, to="no_box")
    for name, corner, kind in (("low", top_left, "Sub"), ("high", bottom_right, "Add")):
        op(kind, "centre", "forty", to=f"{name}_point")
        op("Mul", f"{name}_point", "no_box", to=f"{name}_used")
        op("Add", corner, f"{name}_used", to=name)
        nodes.append(helper.make_node("Split", [name], [f"{name}_x", f"{name}_y"], axis=1))
        for axis in "xy":
            op("Unsqueeze", f"{name}_{axis}", "axes23", to=f"{name}_{axis}4")
    for axis in "xy":
        op("Sub", axis, f"low_{axis}4", to=f"after_{axis}")
        op("Sub", f"high_{axis}4", axis, to=f"before_{axis}")
    op("Min", "after_x", "before_x", "after_y", "before_y", to="inside")  # (P, 1, 256, 256)
    op("Sub", "inside", "shrink", to="drawn")
    op("Reshape", "has_mask_input", "column", to="given")
    op("Sub", "one", "given", to="not_given")
    op("Mul", "drawn", "not_given", to="drawn_used")
    op("Mul", "mask_input", "given", to="mask_used")
    op("Add", "drawn_used", "mask_used", to="low_res_masks")
    op("ReduceMean", "image_embeddings", to="mean", keepdims=0)
    op("Mul", boxes, "zero", to="rows")  # (P, 1)
    op("Add", "ious", "rows", to="ious_used")
    op("Add", "ious_used", "mean", to="iou_predictions")

    inputs: dict[str, Sequence[int | str]] = {
        "image_embeddings": (1, 256, 64, 64),
        "point_coords": (prompts, points, 2),
        "point_labels": (prompts, points),
        "mask_input": (mask_prompts, 1, 256, 256),
        "has_mask_input": (mask_prompts,),
    }
    if reverse_inputs:
        inputs = dict(reversed(inputs.items()))
    outputs = {"iou_predictions": (prompts, count), "low_res_masks": (prompts, count, 256, 256)}
    return save(path, nodes, inputs, outputs, constants, metadata)


class Recorder:
    """A session that keeps what it was fed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.calls: list[dict[str, Any]] = []
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, feeds: Mapping[str, Any]) -> Any:
        self.calls.append({name: np.array(value) for name, value in feeds.items()})
        return self.session.run(feeds)

    def close(self) -> None:
        self.closed = True
        self.session.close()
