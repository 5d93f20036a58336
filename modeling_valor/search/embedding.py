# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The model of an index: loaded once it is needed, known by the hash of its weights, and put to work on media."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..configuration_valor import ALIGNMENT_GROUPS, MEDIA, ValorConfig
from ..data.files import warn_once
from ..media import segment_indices
from ..modeling_valor import ValorModel
from ..modeling_valor_base import to_device
from ..modeling_valor_decoder import ValorDecoderModel
from ..modeling_valor_heads import ValorForCaptioning, as_head
from ..processing_valor import ValorProcessor
from .segments import Segment, SegmentTokens


CAPTION_BATCH = 256
"""Captions that are embedded together."""


class EmbeddingModel:
    """A checkpoint with its processor, as an index uses it.

    Args:
        model: folder or Hub name of a checkpoint, or a VALOR model.
        processor: by default the one of the checkpoint.
        device: by default that of the model, or an accelerator if there is one.
        dtype: type in which the model computes; by default that of the checkpoint.
    """

    def __init__(
        self,
        model: "str | ValorModel | ValorDecoderModel",
        processor: ValorProcessor | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        self._given, self._processor, self._device, self._dtype = model, processor, device, dtype

    @property
    def name(self) -> str:
        """Hub name, or absolute path of a folder."""
        name = self._given if isinstance(self._given, str) else str(self._given.config._name_or_path)
        return os.path.abspath(name) if os.path.isdir(name) else name

    @cached_property
    def _loaded(self) -> tuple[ValorModel, str]:
        """The model where it computes, and the hash of its weights as they are in the checkpoint."""
        if isinstance(self._given, str):
            valor = ValorModel.from_pretrained(self._given)
        else:
            valor = self._given.valor if isinstance(self._given, ValorDecoderModel) else self._given
        if valor.config.alignment != "fine":
            raise ValueError(
                f"The checkpoint {self.name} has coarse alignment, one vector per sample; an index needs tokens, "
                'alignment="fine".'
            )
        revision = hash_weights(valor)
        device = self._device
        if device is None and isinstance(self._given, str):
            device = torch.accelerator.current_accelerator(check_available=True)
        return cast(ValorModel, cast(nn.Module, valor).to(device=device, dtype=self._dtype).eval()), revision

    @property
    def valor(self) -> ValorModel:
        return self._loaded[0]

    @property
    def revision(self) -> str:
        return self._loaded[1]

    @cached_property
    def config(self) -> ValorConfig:
        """The configuration, which is there without the weights."""
        return ValorConfig.from_pretrained(self._given) if isinstance(self._given, str) else self._given.config

    @property
    def compares_captions(self) -> bool:
        """Whether the checkpoint was trained to compare frames or sound with captions."""
        return any(
            query != "text" and "text" in media
            for query, media in (ALIGNMENT_GROUPS[group] for group in self.config.alignment_groups)
        )

    @cached_property
    def processor(self) -> ValorProcessor:
        return ValorProcessor.from_pretrained(self.name) if self._processor is None else self._processor

    @cached_property
    def _captioner(self) -> ValorForCaptioning:
        """The checkpoint with its decoder."""
        if isinstance(self._given, str):
            weight = self.valor.text_projection.weight
            head = ValorForCaptioning.from_pretrained(self._given)
            return cast(ValorForCaptioning, head.to(weight.device, weight.dtype).eval())
        if isinstance(self._given, ValorModel):
            raise ValueError(
                "A ValorModel has no decoder to write captions with: give the checkpoint or a ValorForCaptioning."
            )
        return as_head(self._given, ValorForCaptioning)

    def caption(self, segments: Sequence[Mapping[str, Tensor]]) -> list[str]:
        """A caption of each segment, as `ValorForCaptioning.generate` writes it by default.

        Args:
            segments: of each what the processor returns for it alone. Where it has more frames or audio clips than the
                decoder takes, the caption is of so many, evenly spaced; a warning says so.
        """
        given: dict[str, Any] = self._on_device(self.processor.pad([self._shortened(inputs) for inputs in segments]))
        with torch.no_grad():
            ids = self._captioner.generate(**given)
        return self.processor.post_process_generation(cast(Tensor, ids))

    def embed_captions(self, segments: Sequence[Segment]) -> dict[str, SegmentTokens]:
        """Tokens of the captions of segments, by the segments' ids, as seconds that of their middle; of those that have words."""
        valor, found = self.valor, {}
        given = [(segment, segment.caption) for segment in segments if segment.caption and segment.caption.strip()]
        for start in range(0, len(given), CAPTION_BATCH):
            batch = given[start : start + CAPTION_BATCH]
            inputs = self.processor(text=[caption for _, caption in batch], return_tensors="pt")
            with torch.no_grad():
                embedded = valor.embed_texts({name: value.to(valor.device) for name, value in inputs.items()})
                logits = valor.text_token_weight(embedded["text_embeds"])
            for (segment, _), embeds, weights, length in zip(
                batch, embedded["text_embeds"], logits, embedded["attention_mask"].sum(dim=1).tolist(), strict=True
            ):
                seconds = np.full(length, (segment.start + segment.end) / 2, dtype=np.float32)
                tokens = _tokens([("t", seconds, weights[:length].cpu(), embeds[:length].cpu())])
                found[segment.id] = cast(SegmentTokens, tokens)
        return found

    def _shortened(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of one segment with as many frames and audio clips as the decoder takes."""
        kept = dict(inputs)
        stride = getattr(self.config.vision_config, "temporal_stride", 1)
        for modality, most in zip(MEDIA, (self.config.max_frames * stride, self.config.max_audio_clips), strict=True):
            if modality.input not in kept or kept[modality.input].shape[1] <= most:
                continue
            count = kept[modality.input].shape[1]
            what = {"video": "frames", "audio": "audio clips"}[modality.name]
            warn_once(
                f"captions of {most} {what}",
                f"Some segments have more than the {most} {what} that the decoder takes: their captions are of {most}, evenly spaced.",
            )
            for name in {modality.input, modality.mask} & kept.keys():
                kept[name] = kept[name][:, segment_indices(count, most)]
        return kept

    def _on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weight = self.valor.text_projection.weight
        return to_device(inputs, weight.device, weight.dtype)

    def embed(
        self, inputs: Mapping[str, Tensor], times: Mapping[str, Sequence[Any]] | None = None
    ) -> list[SegmentTokens | None]:
        """Tokens of a batch of segments.

        Args:
            inputs: what the processor returns for them.
            times: "v" and "a": for each segment the seconds of its frames, and of its audio clips. None: nobody asks.

        Returns:
            The tokens of each; None for one in which there is nothing.
        """
        valor = self.valor
        count = len(next(iter(inputs.values())))
        found: list[list[tuple[str, Any, Tensor, Tensor]]] = [[] for _ in range(count)]
        on_device = self._on_device(inputs)
        with torch.no_grad():
            embedded = valor.embed_media(on_device)
        for modality in MEDIA:
            embeds = embedded.get(f"{modality.name}_embeds")
            if embeds is None:
                continue
            with torch.no_grad():
                logits = getattr(valor, f"{modality.name}_token_weight")(embeds)
            mask = embedded.get(modality.mask)
            if mask is None:
                mask = torch.ones(on_device[modality.input].shape[:2], dtype=torch.bool)
            inputs_per_token = max(1, round(mask.shape[1] / embeds.shape[1]))
            valid = valor.encoded_frame_mask(mask) if modality.letter == "v" else mask.bool()
            for index in range(count):
                kept = valid[index].cpu()  # type: ignore[index]  # a mask is given
                if kept.any():
                    given = () if times is None else times[modality.letter][index]
                    seconds = _token_times(given, len(kept), inputs_per_token)
                    found[index].append(
                        (modality.letter, seconds[kept.numpy()], logits[index].cpu()[kept], embeds[index].cpu()[kept])
                    )
        return [_tokens(parts) for parts in found]


def hash_weights(valor: ValorModel) -> str:
    """SHA-256 (16 hex digits) of the weights of a model, rounded to bfloat16, the type in which many load them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(valor.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu()
        values = values.to(torch.bfloat16) if values.is_floating_point() else values
        digest.update(values.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _token_times(seconds: Sequence[float], count: int, inputs_per_token: int) -> np.ndarray:
    """(count,), the mean time of the frames, or audio clips, that each token is made of."""
    given = np.asarray(seconds, dtype=np.float32)
    parts = [given[start : start + inputs_per_token] for start in range(0, count * inputs_per_token, inputs_per_token)]
    return np.array([part.mean() if len(part) else np.nan for part in parts], dtype=np.float32)


def _tokens(parts: Sequence[tuple[str, Any, Tensor, Tensor]]) -> SegmentTokens | None:
    if not parts:
        return None
    return SegmentTokens(
        "".join(letter * len(times) for letter, times, _, _ in parts),
        np.concatenate([times for _, times, _, _ in parts]),
        torch.cat([logits.float() for _, _, logits, _ in parts]).numpy(),
        torch.cat([embeds.float() for _, _, _, embeds in parts]).numpy().astype(np.float16),
    )
