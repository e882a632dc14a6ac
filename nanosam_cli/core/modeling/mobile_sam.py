"""MobileSAM (Zhang et al. 2023, arXiv 2306.14289) from its published checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.modeling.foreign import find_weights
from nanosam_cli.core.modeling.sam_decoder import SamDecoder
from nanosam_cli.core.modeling.tiny_vit import TinyViTEncoder

ENCODER_PREFIX = "image_encoder."


class MobileSam(nn.Module):
    """The two files' modules: `encoder` and `decoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TinyViTEncoder()
        self.decoder = SamDecoder()

    def weights(self) -> dict[str, Tensor]:
        """Both parts' tensors by the names of MobileSAM's state-dict."""
        encoder = {ENCODER_PREFIX + name: tensor for name, tensor in self.encoder.state_dict().items()}
        return {**encoder, **self.decoder.state_dict()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take MobileSAM's state-dict. InputError, listing them, where names are missing or left over."""
        encoder = {
            name.removeprefix(ENCODER_PREFIX): w for name, w in weights.items() if name.startswith(ENCODER_PREFIX)
        }
        decoder = {name: weight for name, weight in weights.items() if not name.startswith(ENCODER_PREFIX)}
        missing, extra = [], []
        for module, part, prefix in ((self.encoder, encoder, ENCODER_PREFIX), (self.decoder, decoder, "")):
            try:
                report = module.load_state_dict(part, strict=False)
            except RuntimeError as error:  # shapes; torch's message lists them
                raise InputError(f"these are not MobileSAM's weights: {error}") from error
            missing += [prefix + name for name in report.missing_keys]
            extra += [prefix + name for name in report.unexpected_keys]
        if missing or extra:
            raise InputError(f"these are not MobileSAM's weights: {_some('missing', missing)}; {_some('extra', extra)}")


def load_mobile_sam(path: Path) -> MobileSam:
    """Read `mobile_sam.pt`, or one that was trained on and saved in another way; see `find_weights`.

    In evaluation mode. Never runs code from the file.

    Raises:
        InputError: the file is missing, no checkpoint, holds anything but tensors, or another model's weights.
    """
    model = MobileSam()
    model.load_weights(find_weights(path, model.weights()))
    return model.eval()


def _some(what: str, names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what} {', '.join(names[:limit]) or 'none'}{more}"
