"""The way down from half precision where a proof fails: first a few nodes back in float32, at last all of them.

Each step is proved. What was tried, what it gave and what it cost is kept, and said while it goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from math import prod
from time import perf_counter

import onnx

from nanosam_cli.core.graphs.graph import Graph
from nanosam_cli.core.graphs.half_convert import convert_to_half
from nanosam_cli.core.graphs.half_emulate import emulate_half
from nanosam_cli.core.graphs.half_plan import BF16, Half, HalfPlan, plan_half
from nanosam_cli.core.graphs.half_writer import half_graph
from nanosam_cli.core.graphs.node_groups import attention_nodes, half_work, norm_nodes
from nanosam_cli.core.precision.ladder_step import Candidate, Prove, Step
from nanosam_cli.core.precision.search import smallest

CHASES = 12  # times that an overflow is followed to the nodes behind it


class Ladder:
    """One part's model and how it is proved. `prove` looks at every photo, `glance` at a few, for the search."""

    def __init__(self, model: onnx.ModelProto, half: Half, prove: Prove, glance: Prove) -> None:
        self._model, self._half, self._prove, self._glance = model, half, prove, glance
        self._graph = half_graph(model, half)
        plan = plan_half(self._graph, half)
        self._able = [node.name for node in self._graph.nodes if node.name in plan.nodes]

    def steps(self) -> Iterator[Step]:
        """One after the other, each proved; who asks for them stops at the first that will do.

        The last, all in float32, is the original itself.
        """
        norms = norm_nodes(self._graph).intersection(self._able)
        blocks = attention_nodes(self._graph).intersection(self._able) | norms
        yield self._step(f"all in {self._half.name}", self._half, ())
        if norms:
            yield self._step("norms, softmax, powers and sums in fp32", self._half, norms)
        if blocks > norms:
            yield self._step("attention blocks in fp32", self._half, blocks)
        found = smallest(self._sufficient(), self._is_enough)
        if len(found) < len(self._able):
            yield self._step("what bisection found in fp32", self._half, found)
        if self._half is not BF16:
            yield self._step("all in bf16", BF16, ())
        yield self._step("all in fp32", None, self._able)

    def _step(self, name: str, half: Half | None, keep: Collection[str]) -> Step:
        start = perf_counter()
        kind = half or self._half
        graph = half_graph(self._model, kind)
        plan = plan_half(graph, kind, keep)
        proof = self._prove(_candidate(self._model, kind, keep))
        kept = tuple(node.name for node in graph.nodes if node.name in set(keep))
        return Step(
            name=name,
            precision=half.name if half else "fp32",
            keep=kept if half else (),
            proof=proof,
            megabytes=weight_megabytes(graph, plan),
            cheap_work=half_work(graph, plan.nodes),
            seconds=perf_counter() - start,
            make=partial(convert_to_half, self._model, half, kept) if half else lambda: self._model,
        )

    def _is_enough(self, keep: Sequence[str]) -> bool:
        return self._glance(_candidate(self._model, self._half, keep)).passed

    def _sufficient(self) -> list[str]:
        """Nodes that are enough in float32: those that overflow and those that read what overflows, else all."""
        keep: set[str] = set()
        for _ in range(CHASES):
            candidate = _candidate(self._model, self._half, keep)
            proof = self._glance(candidate)
            if proof.passed:
                return [name for name in self._able if name in keep]
            more = self._behind({overflow.place for overflow in proof.overflows}, candidate) - keep
            if not more:
                break
            keep |= more
        return self._able

    def _behind(self, places: set[str], candidate: Candidate) -> set[str]:
        """The nodes to blame for overflows: the one that computes, or those that take a float32 value as half."""
        emulation = candidate.emulation
        assert emulation is not None
        values = {check.place for check in emulation.checks if check.is_value} & places
        found = {node.name for node in self._graph.nodes if values.intersection(node.input)} | (places - values)
        return found.intersection(self._able)


def _candidate(model: onnx.ModelProto, half: Half, keep: Collection[str]) -> Candidate:
    emulation = emulate_half(model, half, keep)
    return Candidate(emulation.model, emulation)


def weight_megabytes(graph: Graph, plan: HalfPlan) -> float:
    """What the graph's constants take: 2 bytes a number where a half node reads it, 4 where another does."""
    read: dict[str, set[int]] = {}
    for node in graph.nodes:
        for name in node.input:
            if graph.is_float(name) and name in graph.constants:
                read.setdefault(name, set()).add(2 if node.name in plan.nodes else 4)
    return sum(float(prod(graph.constants[name].dims) * sum(sizes)) for name, sizes in read.items()) / 1e6
