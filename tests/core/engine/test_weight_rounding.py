from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from nanosam_cli.core.engine import weight_rounding
from nanosam_cli.core.engine.int8 import CPU, quantized
from nanosam_cli.core.engine.weight_rounding import round_together, rounded_together, second_moments
from nanosam_cli.core.graphs.graph import array_of, read_graph
from tests.onnx_graphs import make_model, run_model

RANDOM = np.random.default_rng(3)


def smooth_photo() -> NDArray[np.float32]:
    """Neighbouring pixels alike, as in photos."""
    coarse = RANDOM.standard_normal((1, 3, 4, 4), np.float32)
    return np.kron(coarse, np.ones((1, 1, 6, 6), np.float32)) + RANDOM.standard_normal((1, 3, 24, 24), np.float32) / 10


PHOTOS = [smooth_photo() for _ in range(3)]


def conv(shape: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """One convolution of the photo."""
    weights = {"w": RANDOM.standard_normal(shape, np.float32)}
    node = helper.make_node("Conv", ["image", "w"], ["image_embeddings"], "conv", **attributes)
    return make_model([node], {"image": ("B", 3, 24, 24)}, {"image_embeddings": ("B", shape[0], "H", "W")}, weights)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((5, 3, 1, 1), {}),
        ((4, 3, 3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
        ((4, 3, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3], "strides": [1, 2]}),
        ((6, 1, 5, 5), {"group": 3, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    ],
    ids=["3 x 3", "1 x 1", "uneven", "dilated", "depthwise"],
)
def test_moments_are_those_of_what_a_kernel_sees(
    shape: tuple[int, ...], attributes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean square of each output channel follows from them."""
    monkeypatch.setattr(weight_rounding, "SAMPLES", 24 * 24)  # every place
    model = conv(shape, **attributes)
    moment = second_moments(read_graph(model), PHOTOS)["conv"]
    rows = array_of(model.graph.initializer[0]).reshape(len(moment), -1, moment.shape[-1])
    found = np.einsum("god,gde,goe->go", rows, moment, rows).ravel()
    outputs = [run_model(model, {"image": photo})["image_embeddings"] for photo in PHOTOS]
    np.testing.assert_allclose(found, np.mean(np.square(outputs), axis=(0, 1, 3, 4)), rtol=1e-4)


def test_moments_do_not_depend_on_how_much_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: RANDOM.standard_normal((3, 3, 3, 3), np.float32) for name in "ab"}
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["middle"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["middle", "b"], ["image_embeddings"], "second", auto_pad="SAME_UPPER"),
        helper.make_node("Conv", ["middle", "b"], ["other"], "third"),
    ]
    shapes: dict[str, tuple[int | str, ...]] = {"image_embeddings": ("B", 3, 24, 24), "other": ("B", 3, 22, 22)}
    graph = read_graph(make_model(nodes, {"image": ("B", 3, 24, 24)}, shapes, weights))
    together = second_moments(graph, PHOTOS)
    monkeypatch.setattr(weight_rounding, "MOST_HELD", 1.0)
    apart = second_moments(graph, PHOTOS)
    assert together.keys() == apart.keys() == {"first", "third"}  # padding that the runtime chooses is left alone
    monkeypatch.setattr(weight_rounding, "MOST_PHOTOS", 1)
    assert not np.allclose(second_moments(graph, PHOTOS)["first"], together["first"])


def test_rounding_together_loses_less() -> None:
    """Inputs that are alike add up what each weight is off."""
    weights = RANDOM.uniform(-8, 8, (2, 7, 9))
    mixing = RANDOM.standard_normal((2, 9, 9)) / 3 + 1
    moment = mixing @ mixing.swapaxes(1, 2)
    rounded = rounded_together(weights, moment, 64)
    np.testing.assert_array_equal(rounded, np.rint(rounded))

    def loss(found: NDArray[np.float64]) -> NDArray[np.float64]:
        error = found - weights
        return np.einsum("god,gde,goe->g", error, moment, error)

    assert (loss(rounded) < loss(np.rint(weights)) / 2).all()


def test_inputs_that_have_nothing_in_common_leave_the_nearest_step() -> None:
    weights = RANDOM.uniform(-90, 90, (1, 4, 6))
    moment = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])[None]
    np.testing.assert_array_equal(rounded_together(weights, moment, 64), np.rint(weights).clip(-64, 64))


def test_inputs_that_were_always_zero_leave_the_nearest_step() -> None:
    weights = RANDOM.uniform(-64, 64, (2, 3, 4))
    np.testing.assert_array_equal(rounded_together(weights, np.zeros((2, 4, 4)), 64), np.rint(weights))


def test_a_quantised_model_comes_closer_to_its_original() -> None:
    model = conv((8, 3, 5, 5), pads=[2, 2, 2, 2])
    graph = read_graph(model)
    whole = quantized(model, PHOTOS, "MinMax", CPU, [])
    expected = [run_model(model, {"image": photo})["image_embeddings"] for photo in PHOTOS]

    def error() -> float:
        found = [run_model(whole, {"image": photo})["image_embeddings"] for photo in PHOTOS]
        return float(np.mean(np.square(np.subtract(found, expected))))

    nearest = error()
    round_together(whole, graph, second_moments(graph, PHOTOS), CPU.largest)
    onnx.checker.check_model(whole, full_check=True)
    assert error() < 0.7 * nearest
