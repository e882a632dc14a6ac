"""A torch module behind the session seam, so that training is evaluated by the predictor that users run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nanosam_cli.core.inference.contract import INPUTS, OUTPUTS, Shape
from nanosam_cli.core.inference.session import Tensor, TensorInfo, host


class TorchSession:
    """Runs a module whose positional arguments are the contract's inputs of its part, in the contract's order.

    The module is in evaluation mode until `close`, which puts its mode back. `shapes` are those of inputs that a file
    would have fixed; modules take any.
    """

    def __init__(
        self, module: nn.Module, part: str, metadata: Mapping[str, str], shapes: Mapping[str, Shape] | None = None
    ) -> None:
        self._module = module
        self._was_training = module.training
        self._device = next(module.parameters()).device
        module.eval()
        self.path = Path(type(module).__name__)
        inputs = INPUTS[part] if shapes is None else {**INPUTS[part], **shapes}
        self.inputs = tuple(TensorInfo(name, shape, "float32") for name, shape in inputs.items())
        self.outputs = tuple(TensorInfo(name, shape, "float32") for name, shape in OUTPUTS[part].items())
        self.metadata = dict(metadata)
        self.remarks: tuple[str, ...] = ()
        self.backend = f"torch {torch.__version__} on {self._device}"

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name, on the host."""
        arguments = [torch.from_numpy(np.asarray(host(feeds[info.name]))).to(self._device) for info in self.inputs]
        with torch.no_grad():
            outputs = self._module(*arguments)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {info.name: out.float().cpu().numpy() for info, out in zip(self.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Give the module back as it was."""
        self._module.train(self._was_training)
