"""Nodes put before or behind a model's own, written as ONNX's own text, which `onnx.parser` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, compose, numpy_helper, parser

from nanosam_cli.core.errors import ModelError

Constants: TypeAlias = Mapping[str, NDArray[Any]]


def put_before(model: ModelProto, text: str, renamed: Mapping[str, str], constants: Constants) -> ModelProto:
    """A copy of the model behind the graph in `text`, whose inputs take the place of the model's.

    `renamed` maps inputs of the model to the outputs of the text that they come from; an input that is not in it stays
    behind those of the text. Opset and metadata are the model's.
    """
    merged, added = _parsed(model, text, constants)
    kept = [value for value in merged.graph.input if value.name not in renamed]
    own = list(merged.graph.node)
    for node in own:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del merged.graph.input[:], merged.graph.node[:]
    merged.graph.input.extend([*added.input, *kept])
    merged.graph.node.extend([*added.node, *own])
    return _checked(merged)


def put_behind(model: ModelProto, text: str, outputs: Sequence[str], constants: Constants) -> ModelProto:
    """A copy of the model with the graph in `text` behind it; the inputs of the text that it lacks become its own.

    `outputs` are those of the result in their order, each one of the model's or one of the text's.
    """
    merged, added = _parsed(model, text, constants)
    has = {name for node in merged.graph.node for name in node.output}
    has.update(value.name for value in merged.graph.input)
    merged.graph.input.extend(value for value in added.input if value.name not in has)
    merged.graph.node.extend(added.node)
    values = {value.name: value for value in (*merged.graph.output, *added.output)}
    found = [values[name] for name in outputs]
    del merged.graph.output[:]
    merged.graph.output.extend(found)
    return _checked(merged)


def _parsed(model: ModelProto, text: str, constants: Constants) -> tuple[ModelProto, onnx.GraphProto]:
    """A copy of the model, and the graph in `text`, whose inner names cannot be the model's."""
    merged = ModelProto()
    merged.CopyFrom(model)
    added = parser.parse_graph(text)
    added.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    compose.add_prefix_graph(added, f"contract/{added.name}/", rename_inputs=False, rename_outputs=False, inplace=True)
    merged.graph.initializer.extend(added.initializer)
    return merged, added


def _checked(model: ModelProto) -> ModelProto:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the model cannot be given this contract: {str(error).partition(chr(10))[0]}") from error
    return model
