"""Make a checkpoint that can be trained on from the ONNX files of a model of ours, whose checkpoint is not at hand.

    python benchmarks/trainable_weights.py nanosam-b0 encoder.onnx decoder.onnx --set data.root=DATA -o b0.safetensors

The recipe's model is exported once with random weights; where each of them went in that file tells where to read it in
the other. Export folds BatchNorm into its convolution. What it did in training is put back from the statistics of
`--batches` training batches, so that the model is the same with them and with a batch's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nanosam_cli.core.export.export import to_onnx
from nanosam_cli.core.export.parts import OPSET, decoder_part, encoder_part
from nanosam_cli.core.graphs.graph import widened
from nanosam_cli.core.modeling.checkpoint import save_tensors
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.recipe import Recipe, find_recipe, load_recipe
from nanosam_cli.core.training.training_step import TrainingStep
from nanosam_cli.core.types import DECODER, ENCODER

Arrays = dict[str, NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="whose [model] the files are")
    parser.add_argument("encoder", type=Path)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    recipe = load_recipe(find_recipe(options.recipe), options.overrides)
    model = PromptableModel(recipe.model, download=False).eval()
    size = recipe.model.image_size
    assert model.decoder is not None
    for part, make in ((ENCODER, lambda m: encoder_part(m, size)), (DECODER, decoder_part)):
        module = getattr(model, part)
        shuffle(module)
        traced = to_onnx(make(module), OPSET)
        wanted = widened(onnx.load(getattr(options, part)))
        unfold(module, arrays_of(traced), arrays_of(wanted))
    restore_statistics(model, recipe, options.batches)
    tensors = {f"ema.module.{name}": tensor for name, tensor in model.state_dict().items()}
    save_tensors(options.output, tensors, {"recipe": recipe.to_dict(), "step": 0, "fingerprint": ""})
    print(f"{options.output}: {len(tensors)} tensors")


def shuffle(module: nn.Module) -> None:
    """Every weight another one, so that each is found once."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)


def arrays_of(model: onnx.ModelProto) -> Arrays:
    return {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}


def unfold(module: nn.Module, traced: Arrays, wanted: Arrays) -> None:
    """Give `module`, whose weights `traced` holds, those of the file `wanted`."""
    left = dict(module.named_parameters())
    found: list[tuple[Tensor, Tensor]] = []
    for conv, norm in folded(module):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        found.append((conv.weight, look_up(conv.weight * scale.reshape(-1, 1, 1, 1), traced, wanted)))
        found.append((norm.bias, look_up(norm.bias - norm.running_mean * scale, traced, wanted)))
        found += [(norm.weight, torch.ones_like(norm.weight)), (norm.running_mean, torch.zeros_like(norm.weight))]
        found.append((norm.running_var, torch.full_like(norm.weight, 1 - norm.eps)))
    if isinstance(module, RegionDecoder):  # where export computed the difference of two weights beforehand
        box, click = module.prior_scale, module.click_prior_scale
        found.append((click, look_up(click - box, traced, wanted) + look_up(box, traced, wanted)))
    done = {id(tensor) for tensor, _ in found}
    found += [(tensor, look_up(tensor, traced, wanted)) for tensor in left.values() if id(tensor) not in done]
    with torch.no_grad():
        for tensor, value in found:
            tensor.copy_(value)


def folded(module: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions with the BatchNorm that follows each."""
    before: nn.Module | None = None
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert isinstance(before, nn.Conv2d)
            yield before, child
        if isinstance(child, (nn.Conv2d, nn.BatchNorm2d)):
            before = child


def look_up(value: Tensor, traced: Arrays, wanted: Arrays) -> Tensor:
    """What stands in `wanted` where `value` stands in `traced`; linear layers are transposed there."""
    own = value.detach().numpy()
    for name, array in traced.items():
        for turned in (False, True):
            other = array.T if turned else array
            if other.shape == own.shape and np.allclose(other, own, rtol=1e-5):
                return torch.from_numpy((wanted[name].T if turned else wanted[name]).copy())
    raise SystemExit(f"a weight of shape {own.shape} is not in the file")


@torch.no_grad()
def restore_statistics(model: PromptableModel, recipe: Recipe, batches: int) -> None:
    """Write every BatchNorm as mean and variance of its inputs and what undoes them: the same function."""
    dataset = TrainingCrops(recipe)
    step = TrainingStep(model, recipe, None).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: torch.zeros(3, len(norm.bias), dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].double()
        count = torch.full((len(norm.bias),), values[:, 0].numel())
        sums[norm] += torch.stack([count, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for number in range(batches):
        step(dataset.batch(dataset.samples_of(number), recipe.micro_batch * recipe.data.objects), number)
    for hook in hooks:
        hook.remove()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        variance = squares / count - mean.square()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


if __name__ == "__main__":
    main()
