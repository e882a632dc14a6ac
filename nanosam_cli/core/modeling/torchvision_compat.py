"""Let torchvision (which timm imports) load beside a torch of another build.

PyPI's torchvision links CUDA; beside a CPU build of torch its compiled operators do not load and the import fails with
`operator torchvision::nms does not exist`. Models and transforms need none of them: it is enough that the names exist.
"""

from __future__ import annotations

import torch

_DIFFERENTIABLE = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
_COMPILED = ("nms", "qnms", "qroi_align", *_DIFFERENTIABLE, *(f"_{name}_backward" for name in _DIFFERENTIABLE))


def import_torchvision() -> None:
    """Import torchvision; where its compiled operators are missing, declare their names and import it again."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in _COMPILED:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", "(Tensor unavailable) -> Tensor")
        import torchvision
    assert torchvision.__version__
