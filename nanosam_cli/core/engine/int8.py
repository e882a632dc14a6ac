"""int8 with calibration photos: explicit Q/DQ nodes by ONNX Runtime's quantiser, and the ladder where it fails.

Activations get the range that they had on the photos, weights one for each output channel, and are rounded together.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from time import perf_counter

import onnx
from onnx import NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from nanosam_cli.core.engine.ort_optimize import optimized
from nanosam_cli.core.engine.weight_rounding import Wide, round_together, second_moments
from nanosam_cli.core.frame import Array
from nanosam_cli.core.graphs.graph import Graph, drop_unused, read_graph, set_metadata
from nanosam_cli.core.graphs.node_groups import half_work
from nanosam_cli.core.graphs.rewrites import SPLIT, SPLIT_SUM, rewrite
from nanosam_cli.core.precision.ladder_step import Candidate, Prove, Step
from nanosam_cli.core.precision.proof import Proof
from nanosam_cli.core.precision.search import smallest
from nanosam_cli.core.system.temporary import scratch_folder

# Of calibration, in the order they are tried. Entropy gave MinMax's ranges on the model in the box, at twice the time.
METHODS = ("MinMax", "Percentile")
HEAVY = ("Conv", "Gemm", "MatMul")
# bytes of one photo's numbers that Percentile may keep, all at once: the model in the box has 0.2e9, MobileSAM 3.6e9
MOST_KEPT = 2e9


@dataclass(frozen=True)
class Scheme:
    """What a runtime takes."""

    symmetric: bool  # no zero points, and biases stay float32
    light: tuple[str, ...]  # operators that are quantised so that numbers stay int8 from product to product
    largest: int  # a weight, in steps


# Weights have seven bits on a CPU: without VNNI, sums of two products of eight would be cut off.
CPU = Scheme(symmetric=False, light=("Add", "Clip", "Concat", "MaxPool", "Mul", "Relu", "Resize"), largest=64)
TENSORRT = Scheme(symmetric=True, light=(), largest=127)


class Int8Ladder:
    """An encoder, how it is calibrated and how it is proved: `prove` on every photo, `glance` on a few."""

    def __init__(
        self, model: onnx.ModelProto, photos: Sequence[Array], scheme: Scheme, prove: Prove, glance: Prove
    ) -> None:
        self._original, self._photos, self._scheme = model, photos, scheme
        self._prove, self._glance = prove, glance
        self.prepared = rewrite(optimized(model, "basic"))
        self._graph = read_graph(self.prepared)
        self._left = _left_out(self._graph)
        kinds = (*HEAVY, *scheme.light)
        able = [node for node in self._graph.nodes if node.op_type in kinds and node.name not in self._left]
        self._able = [node.name for node in able]
        self._heavy = [row for row, node in enumerate(able) if node.op_type in HEAVY]

    def steps(self) -> Iterator[Step]:
        """One after the other, each proved, as `Ladder.steps`."""
        best: tuple[float, onnx.ModelProto] | None = None
        kept = self._kept_by_percentile()
        affordable = kept <= MOST_KEPT
        remark = "" if affordable else f" (Percentile would keep {kept / 1e9:.1f} GB and is left out)"
        for method in METHODS if affordable else METHODS[:1]:
            start = perf_counter()
            model = self._quantized(method)
            step = self._step(f"all in int8, calibrated by {method}{remark}", model, (), start)
            yield step
            if best is None or _merit(step.proof) > best[0]:
                best = (_merit(step.proof), model)
        assert best is not None
        whole = best[1]

        def passes(keep: Sequence[str], prove: Prove) -> bool:
            return prove(Candidate(self._without(whole, keep))).passed

        start, most = perf_counter(), (len(self._heavy) - 1) // 2  # beyond half there is little left to gain
        # Fewest first and not by bisection: one layer more may well be worse, for where int8 begins it rounds anew.
        count = next((count for count in _counts(most) if passes(self._first(count), self._prove)), None)
        if count is not None:
            first = self._first(count)
            yield self._step(f"first layers ({count}) in fp32", self._without(whole, first), first, start)
        start = perf_counter()
        found = smallest(self._able, lambda keep: passes(keep, self._glance))
        if len(found) < len(self._able):
            yield self._step("what bisection found in fp32", self._without(whole, found), found, start)
        yield self._step("all in fp32", self._original, None, perf_counter())

    def _step(self, name: str, model: onnx.ModelProto, keep: Collection[str] | None, start: float) -> Step:
        """`keep` is None where nothing is quantised."""
        made_in = perf_counter() - start
        cheap = frozenset() if keep is None else frozenset(self._able).difference(keep)
        return Step(
            name=name,
            precision="fp32" if keep is None else "int8",
            keep=tuple(keep or ()),
            proof=self._prove(Candidate(model)),
            megabytes=model.ByteSize() / 1e6,
            cheap_work=half_work(self._graph, cheap),
            seconds=perf_counter() - start,
            make=partial(_labelled, model, "fp32" if keep is None else "int8"),
            made_in=made_in,
        )

    def _kept_by_percentile(self) -> float:
        """Bytes of the numbers whose histograms it makes, of one photo; dynamic sides count as 1."""
        kinds = (*HEAVY, *self._scheme.light)
        nodes = [node for node in self._graph.nodes if node.op_type in kinds]
        names = {name for node in nodes for name in (*node.input, *node.output) if self._graph.is_float(name)}
        shapes = [self._graph.shapes.get(name, ()) for name in names.difference(self._graph.constants)]
        return 4.0 * sum(prod(side or 1 for side in shape) for shape in shapes)

    def _quantized(self, method: str) -> onnx.ModelProto:
        """Everything, but the photo's colours: those are read as they came."""
        whole = quantized(self.prepared, self._photos, method, self._scheme, self._left)
        round_together(whole, self._graph, self._moments, self._scheme.largest)
        colours = [name for name in self._left if name.endswith(SPLIT)]
        return without(whole, self.prepared, [*self._able, *colours], colours)

    @cached_property
    def _moments(self) -> dict[str, Wide]:
        return second_moments(self._graph, self._photos)

    def _first(self, count: int) -> list[str]:
        """The first layers, whose loss all others miss; they are the sensitive ones in depthwise networks."""
        return self._able[: self._heavy[count]]

    def _without(self, whole: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
        return without(whole, self.prepared, self._able, names)


def quantized(
    prepared: onnx.ModelProto, photos: Sequence[Array], method: str, scheme: Scheme, leave: Collection[str]
) -> onnx.ModelProto:
    """Q/DQ around everything the scheme quantises but the nodes named in `leave`; photos are (1, 3, S, S) each."""
    source = onnx.ModelProto()
    source.CopyFrom(prepared)
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it is: no advice to do so
    options: dict[str, object] = {
        "QDQKeepRemovableActivations": True,  # a ReLU that is gone is missed where nothing rounds any more
        "CalibStridedMinMax": 1,  # photo by photo: all numbers of a 1024-pixel encoder are gigabytes
    }
    if scheme.symmetric:
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    with scratch_folder() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints
        result = folder / "int8.onnx"
        quantize_static(
            source,
            result,
            _Photos(photos),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*HEAVY, *scheme.light],
            per_channel=True,
            reduce_range=not scheme.symmetric,
            activation_type=QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(leave),
            calibrate_method=getattr(CalibrationMethod, method),
            extra_options=options,
        )
        return onnx.load(result)


def without(
    whole: onnx.ModelProto, prepared: onnx.ModelProto, able: Collection[str], keep: Collection[str]
) -> onnx.ModelProto:
    """A quantised model with some of its `able` nodes, those in `keep`, back in float32.

    They read what was there before it was rounded. So do nodes that were never able, but not behind a quantised one,
    which would then have to give its numbers twice.
    """
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    before = {node.name: node for node in prepared.graph.node}
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    quantized_nodes, back = frozenset(able).difference(keep), set[str]()
    for node in graph.node:
        original = before.get(node.name)
        if original is None or node.name in quantized_nodes:  # Q and DQ themselves have new names
            continue
        for index, name in enumerate(node.input):
            source = _unrounded(makers, name)
            if source is None:
                source = f"{original.input[index]}_fp32"  # the plain name may be that of the rounded one
                back.add(original.input[index])
            maker = makers.get(source)
            if node.name in able or maker is None or maker.name not in quantized_nodes:
                node.input[index] = source
    for output in graph.output:
        source = _unrounded(makers, output.name)
        if source is not None and source != output.name and makers[source].name not in quantized_nodes:
            graph.node.remove(makers[output.name])
            _rename(graph, source, output.name)
    for name in sorted(back):
        graph.initializer.append(constants[name])
        graph.initializer[-1].name = f"{name}_fp32"
    drop_unused(graph)
    return model


def _unrounded(makers: Mapping[str, NodeProto], name: str) -> str | None:
    """What a value was before Q and DQ; None for what DQ makes of a constant."""
    dequantize = makers.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return name
    quantize = makers.get(dequantize.input[0])
    return None if quantize is None else quantize.input[0]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _left_out(graph: Graph) -> list[str]:
    """What stays float32 from the start: the photo's own colours beside the features, and their sum with these.

    They are few channels, which int8 multiplies no faster, and details of the mask depend on them.
    """
    return [node.name for node in graph.nodes if node.name.endswith((SPLIT, SPLIT_SUM))]


def _counts(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 11, 15, ... up to `most`: about a third more each time, so that there are few proofs."""
    count = 1
    while count <= most:
        yield count
        count += (count + 2) // 3


def _merit(proof: Proof) -> float:
    return proof.mean_iou if proof.mean_iou is not None else min(error.cosine for error in proof.outputs)


def _labelled(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    set_metadata(model, precision=precision)
    return model


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """The photos, one by one."""

    def __init__(self, photos: Sequence[Array]) -> None:
        self._photos, self._left = photos, iter(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._photos[start_index:end_index])

    def get_next(self) -> dict[str, Array] | None:
        photo = next(self._left, None)
        return None if photo is None else {"image": photo}
