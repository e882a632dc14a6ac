"""Tiny zero-shot detectors with random weights, saved as the hub's are: real model code, real processor, no download.

Their box head is zeroed but for its bias, so that each cell of the image's grid answers with a box of its own place.
"""

from __future__ import annotations

import json
from pathlib import Path

CELLS = 4  # of the grid, along each side
SIDE = 64  # of the model's input, in pixels
TOKENS = 16  # of a phrase, with the two that mark its ends


def save_owl(folder: Path, kind: str = "owlvit", licence: str | None = "apache-2.0") -> Path:
    """An OWL-ViT, or with `owlv2` an OWLv2, which pads photos to a square."""
    import torch
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessor,
        OwlViTProcessor,
    )

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vocabulary = _save_tokenizer(folder)
    marks = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    text = {**size, **marks, "vocab_size": vocabulary, "max_position_embeddings": TOKENS}
    vision = {**size, "image_size": SIDE, "patch_size": SIDE // CELLS}
    sides = {"height": SIDE, "width": SIDE}
    if kind == "owlvit":
        config = OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16)
        model, images, processor = OwlViTForObjectDetection(config), OwlViTImageProcessor(size=sides), OwlViTProcessor
    else:
        config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
        model, images, processor = Owlv2ForObjectDetection(config), Owlv2ImageProcessor(size=sides), Owlv2Processor
    torch.nn.init.zeros_(model.box_head.dense2.weight)
    torch.nn.init.zeros_(model.box_head.dense2.bias)
    model.save_pretrained(folder)
    processor(image_processor=images, tokenizer=_tokenizer(folder)).save_pretrained(folder)
    header = "" if licence is None else f"---\nlicense: {licence}\n---\n"
    (folder / "README.md").write_text(f"{header}# A tiny {kind}\n")
    return folder


def _save_tokenizer(folder: Path) -> int:
    """CLIP's, for single characters; returns the size of its vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(words)


def _tokenizer(folder: Path) -> object:
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast.from_pretrained(folder, model_max_length=TOKENS, pad_token="<|endoftext|>")


def save_grounding_dino(folder: Path) -> Path:
    """A Grounding DINO, which reads one phrase at a time."""
    import torch
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "tree", "cat"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    layer = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    swin = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2, "out_indices": [2, 3, 4]}
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = GroundingDinoConfig(
        backbone_config={"model_type": "swin", "image_size": 64, "patch_size": 4, **swin},
        text_config={"model_type": "bert", "vocab_size": len(words), "max_position_embeddings": 64, **layer},
        d_model=32,
        num_queries=8,
        max_text_len=32,
        **sizes,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, BertTokenizerFast.from_pretrained(folder)).save_pretrained(folder)
    return folder
