"""What a graph in half precision computes, in float32: for machines whose runtime hides half's faults.

ONNX Runtime's CPU runs fp16 graphs in fp32 and drops the casts, so that nothing ever overflows there. Here every node
that the engine would run in half is followed by a cast to half and back, and by a check of the range.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nanosam_cli.core.graphs.graph import Graph, check_model
from nanosam_cli.core.graphs.half_plan import MOVES, Half, HalfPlan, plan_half
from nanosam_cli.core.graphs.half_writer import HalfWriter, half_graph, in_half

RANGES = "nanosam_ranges"  # the emulation's further output: the largest magnitude at each check, before rounding

_EXACT = MOVES | {"Abs", "Cast", "Max", "MaxPool", "Min", "Neg", "Relu"}  # of numbers in half make numbers in half


@dataclass(frozen=True)
class RangeCheck:
    """Something whose range is looked at."""

    place: str  # the node that computes it, or the name of a float32 value that goes into half
    is_value: bool


@dataclass(frozen=True, eq=False)
class Emulation:
    """A float32 graph that computes what its half-precision twin does."""

    model: onnx.ModelProto
    half: Half
    checks: tuple[RangeCheck, ...]  # by their place in RANGES


def emulate_half(model: onnx.ModelProto, half: Half, keep: Collection[str] = ()) -> Emulation:
    """The emulation of what `convert_to_half` makes of the same arguments. Its errors are the same."""
    graph = half_graph(model, half)
    writer = _Emulator(graph, plan_half(graph, half, keep))
    writer.write()
    check_model(graph.model)
    return Emulation(graph.model, half, tuple(writer.checks))


class _Emulator(HalfWriter):
    """All values are float32; those that stand for half were rounded to it."""

    def __init__(self, graph: Graph, plan: HalfPlan) -> None:
        super().__init__(graph, plan)
        self.checks: list[RangeCheck] = []
        self._largest: list[str] = []  # the value of each check
        self._one = self._add_constant(numpy_helper.from_array(np.array([1], np.int64)), "nanosam_one")

    def _as_made(self, name: str) -> str:
        return name

    def _as_float(self, name: str) -> str:
        return name

    def _lowered(self, name: str) -> str:
        return self._rounded(name, self._free(f"{name}_rounded"), RangeCheck(name, is_value=True))

    def _constant(self, name: str, values: NDArray[np.float32]) -> str:
        return self._add_constant(numpy_helper.from_array(in_half(values, self._half)), f"{name}_rounded")

    def _write_outputs(self, node: NodeProto, names: list[str]) -> None:
        self._halved |= {name: name for name in names}
        if node.op_type in _EXACT:
            return
        for name in names:
            exact = self._free(f"{name}_exact")
            node.output[list(node.output).index(name)] = exact
            self._rounded(exact, name, RangeCheck(node.name, is_value=False))

    def _rounded(self, name: str, to: str, check: RangeCheck) -> str:
        """Round a value by a cast to half and back, and have its range checked."""
        size = self._add("Abs", name, self._free(f"{name}_size"))
        most = self._add("ReduceMax", size, self._free(f"{name}_most"), keepdims=0)
        row = self._free(f"{name}_row")
        self._nodes.append(helper.make_node("Reshape", [most, self._one], [row], name=self._free(f"{row}/Reshape")))
        self.checks.append(check)
        self._largest.append(row)
        half = self._add("Cast", name, self._free(f"{name}_{self._half.name}"), to=self._half.elem_type)
        return self._add("Cast", half, to, to=TensorProto.FLOAT)

    def _finish(self) -> None:
        if self._largest:
            self._nodes.append(helper.make_node("Concat", self._largest, [RANGES], name=RANGES, axis=0))
            shape = (len(self._largest),)
            self._graph.model.graph.output.append(helper.make_tensor_value_info(RANGES, TensorProto.FLOAT, shape))
