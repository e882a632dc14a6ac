"""What a step learns: the loss of one micro-batch, from masks, from a teacher's embedding, or from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.backbones import depthwise_kernels, fine_layers
from nanosam_cli.core.modeling.design import LISTENING
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.modeling.prediction import Prompts, WindowPrediction
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.training.data.datasets import Batch
from nanosam_cli.core.training.dialogue import corrected, draw_rounds, give_masks
from nanosam_cli.core.training.losses import choose_masks, feature_loss
from nanosam_cli.core.training.mask_supervision import (
    corrected_prompts,
    first_prompts,
    focus_windows,
    prompt_losses,
    reading_loss,
    refined_rows,
    window_targets,
)
from nanosam_cli.core.training.recipe import LossSection, PromptSection, Recipe
from nanosam_cli.core.training.teaching.teacher import Teacher

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learned(NamedTuple):
    """What a micro-batch gave; scalars."""

    loss: Tensor
    features: Tensor  # the feature loss alone, before its weight
    iou: Tensor  # sum over clear prompts of the chosen masks' true IoU
    clear: Tensor  # how many of those there are


class TrainingStep(nn.Module):
    """The student and all of its losses as one module, so that it can be wrapped for several processes."""

    def __init__(self, model: PromptableModel, recipe: Recipe, teacher: Teacher | None) -> None:
        super().__init__()
        self.model = model
        self._recipe = recipe
        self._teacher = teacher  # no module: its weights are not this one's
        self._half = AUTOCAST.get(recipe.optimiser.precision)

    def forward(self, batch: Batch, number: int) -> Learned:
        """`number` seeds what is drawn here: corrections, and whatever a backbone draws."""
        torch.manual_seed(number)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        if self._recipe.embeddings and batch.teacher_embeddings is not None:
            embeddings = batch.teacher_embeddings.float()
        else:
            with self._autocast(images):
                embeddings = self.model.encoder(images)
        zero = torch.zeros((), device=images.device)
        learned, taught = Learned(zero, zero, zero, zero), self._taught(batch)
        if self._recipe.loss is not None and self._recipe.prompts is not None and len(batch.owner):
            if taught is not None and self._recipe.teacher and self._recipe.teacher.masks == "teacher":
                batch = batch._replace(masks=self._teacher_masks(batch, taught))
            learn = self._dialogue if self._recipe.model.decoder == LISTENING else self._masks
            learned = learn(batch, embeddings, number, self._recipe.loss, self._recipe.prompts)
        section = self._recipe.teacher
        if section and section.weight and taught is not None:
            features = feature_loss(embeddings, taught, section.loss, section.per_channel)
            learned = learned._replace(loss=learned.loss + section.weight * features, features=features.detach())
        return learned

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, self._half or torch.bfloat16, enabled=self._half is not None)

    def _taught(self, batch: Batch) -> Tensor | None:
        """The teacher's embeddings of a batch, from the cache or made now."""
        if batch.teacher_embeddings is not None:
            return batch.teacher_embeddings.float()
        if self._teacher is None or batch.teacher_images is None:
            return None
        return self._teacher.embed(batch.teacher_images)

    def _teacher_masks(self, batch: Batch, taught: Tensor) -> Tensor:
        """What the teacher makes of the batch's own prompts, in the form of annotated masks: (P, 1, C, C) uint8."""
        assert self._teacher is not None
        ious, logits = self._teacher.masks(taught, first_prompts(batch, self._recipe.model.image_size))
        first = 1 if ious.shape[1] == 4 else 0  # SAM's first mask is for clear prompts
        best = first + ious[:, first:].argmax(dim=1)
        if first:
            best = torch.where(batch.ambiguous, best, 0)
        chosen = logits[torch.arange(len(best), device=best.device), best][:, None]
        large = F.interpolate(chosen, batch.masks.shape[2:], mode="bilinear", align_corners=False)
        return (large > 0).to(torch.uint8) * 255

    def _masks(
        self, batch: Batch, embeddings: Tensor, number: int, weights: LossSection, section: PromptSection
    ) -> Learned:
        decoder, image_size = self.model.decoder, self._recipe.model.image_size
        assert decoder is not None
        prompts, focus = first_prompts(batch, image_size), focus_windows(batch.boxes)
        with self._autocast(embeddings):
            prediction = decoder.predict_windows(embeddings, prompts, focus)
        truth = batch.masks.float() / 255
        target, covered = window_targets(truth, prediction.windows, prediction.logits.shape[-1], image_size)
        per_prompt, ious = prompt_losses(prediction, target, covered, batch, weights)
        loss = per_prompt.mean()
        if prediction.reading is not None:
            read = reading_loss(prediction.reading, truth, batch.boxes, image_size)
            loss = loss + weights.click * read.mean()
        clear = ~batch.ambiguous

        rows = refined_rows(len(batch.owner), section.refine, number).to(batch.owner.device)
        generator, ambiguous, count = torch.Generator().manual_seed(number), batch.ambiguous, len(batch.owner)
        for _ in range(section.rounds if len(rows) else 0):
            prompts = corrected_prompts(prompts, prediction, target, ambiguous, rows, generator)
            batch, truth, focus = batch.rows(rows), truth[rows], focus[rows]
            with self._autocast(embeddings):
                prediction = decoder.predict_windows(embeddings, prompts, focus)
            ambiguous = torch.zeros_like(batch.ambiguous)
            target, covered = window_targets(truth, prediction.windows, prediction.logits.shape[-1], image_size)
            again, _ = prompt_losses(prediction, target, covered, batch._replace(ambiguous=ambiguous), weights)
            loss = loss + again.mean() * (len(rows) / count)
            rows = torch.arange(len(rows), device=rows.device)  # those of the first round, all of them
        chosen = ious[clear, 0]
        return Learned(loss, torch.zeros_like(loss), chosen.sum(), clear.sum())

    def _dialogue(
        self, batch: Batch, embeddings: Tensor, number: int, weights: LossSection, section: PromptSection
    ) -> Learned:
        """Each prompt at a place of its own in a dialogue; what came before is not learned from, only its last mask."""
        decoder, image_size = self.model.decoder, self._recipe.model.image_size
        assert isinstance(decoder, RegionDecoder)
        truth, generator = batch.masks.float() / 255, torch.Generator().manual_seed(number)
        with torch.no_grad(), self._autocast(embeddings):
            maps = decoder.prepare(embeddings)

        def predict(prompts: Prompts) -> WindowPrediction:
            with self._autocast(embeddings):
                return decoder.predict_prepared(maps, prompts)

        prompts = give_masks(first_prompts(batch, image_size), truth, batch.boxes, section, generator)
        rounds = draw_rounds(len(batch.owner), section, generator)
        prompts = corrected(prompts, predict, truth, batch.boxes, batch.ambiguous, rounds, image_size, generator)
        batch = batch._replace(ambiguous=batch.ambiguous & (rounds == 0).to(truth.device))
        with self._autocast(embeddings):
            prediction = decoder.predict_windows(embeddings, prompts, focus_windows(batch.boxes))
        target, covered = window_targets(truth, prediction.windows, prediction.logits.shape[-1], image_size)
        per_prompt, ious = prompt_losses(prediction, target, covered, batch, weights)
        loss = per_prompt.mean()
        if weights.obeyed and prediction.ignored is not None:
            loss = loss + weights.obeyed * choose_masks(prediction.ignored, batch.ambiguous).mean()
        if prediction.reading is not None and weights.click:
            read = reading_loss(prediction.reading, truth, batch.boxes, image_size)
            loss = loss + weights.click * read.mean()
        clear = ~batch.ambiguous
        return Learned(loss, torch.zeros_like(loss), ious[clear, 0].sum(), clear.sum())


def freeze(model: PromptableModel, parts: Sequence[str]) -> None:
    """Take gradients from the parts of a recipe's `optimiser.freeze`."""
    for module in _frozen(model, parts):
        module.requires_grad_(False)
    if "depthwise" in parts:
        for kernel in depthwise_kernels(model.encoder.backbone):
            kernel.requires_grad_(False)


def train_mode(model: PromptableModel, parts: Sequence[str]) -> None:
    """Training mode but for what is frozen, whose running statistics stay as they are."""
    model.train()
    for module in _frozen(model, parts):
        module.eval()
    if "batchnorm" in parts:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _frozen(model: PromptableModel, parts: Sequence[str]) -> list[nn.Module]:
    named = {"backbone": model.encoder.backbone, "encoder": model.encoder, "decoder": model.decoder}
    frozen = [module for name, module in named.items() if name in parts and module is not None]
    return frozen + (fine_layers(model.encoder.backbone) if "fine" in parts else [])
