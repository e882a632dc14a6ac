"""Write a checkpoint of MobileSAM's architecture with random weights: a rival for timings, where weights do not matter.

python benchmarks/random_mobile_sam.py mobile_sam.pt
nanosam export all mobile_sam.pt -o msam
"""

from __future__ import annotations

import sys

import torch

from nanosam_cli.core.modeling.mobile_sam import ENCODER_PREFIX, MobileSam

torch.manual_seed(0)
model = MobileSam()
encoder = {ENCODER_PREFIX + name: weight for name, weight in model.encoder.state_dict().items()}
torch.save({**encoder, **model.decoder.state_dict()}, sys.argv[1])
