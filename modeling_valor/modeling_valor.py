# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR: the encoders of text, video and audio, and their alignment (Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .alignment import (
    TokenSet,
    coarse_similarities,
    contrastive_losses,
    grouped_similarity,
    mean_of_groups,
    similarity_over_ranks,
)
from .alignment_ranks import RankSamples, gather_tokens, is_distributed
from .configuration_valor import MEDIA, MODALITIES, ValorConfig
from .modeling_valor_audio import ValorAudioModel
from .modeling_valor_base import ValorPreTrainedModel
from .modeling_valor_text import ValorConditions, ValorTextModel
from .modeling_valor_vision import (
    build_part,
    build_vision_model,
    encode_each,
    encode_frames,
    encoded_frame_mask,
    vision_hidden_size,
)


@dataclass
class ValorOutput(ModelOutput):
    r"""loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `return_loss=True`):
        Contrastive loss, the mean over the modality groups that any sample has (eq. 4).
    alignment_losses (`dict[str, torch.FloatTensor]`, *optional*, returned when `return_loss=True`):
        Loss of each modality group, 0 for one that no sample has.
    similarity (`dict[str, torch.FloatTensor]`):
        Scores of each modality group, `(batch_size, batch_size)`, without temperature; rows are the items of the
        group's first letter. With a loss, in training on several ranks, `(batch_size, samples of all ranks)`: rows are the
        samples of this rank, by their text where the group has it.
    text_embeds (`torch.FloatTensor` of shape `(batch_size, length, projection_dim)`, *optional*):
        L2-normalised text tokens; `(batch_size, projection_dim)` with coarse alignment, as the following two.
    video_embeds (`torch.FloatTensor` of shape `(batch_size, num_frames, projection_dim)`, *optional*)
    audio_embeds (`torch.FloatTensor` of shape `(batch_size, num_audio_clips, projection_dim)`, *optional*)
    text_model_output (`BaseModelOutput`, *optional*): output of the text encoder.
    vision_model_output (`BaseModelOutputWithPooling`, *optional*):
        Tokens `(batch_size, num_frames, tokens, hidden_size)` and one vector per frame.
    audio_model_output (`BaseModelOutputWithPooling`, *optional*): the same for audio clips.
    """

    loss: torch.Tensor | None = None
    alignment_losses: dict[str, torch.Tensor] | None = None
    similarity: dict[str, torch.Tensor] | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    audio_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutput | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None
    audio_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


def l2_normalize(states: torch.Tensor) -> torch.Tensor:
    """L2-normalised along the last axis, computed in float32; zeros stay zeros.

    In float16 the epsilon of the division would be rounded to zero. Under autocast the result is float32, like that of
    other norms.
    """
    normalized = F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)
    return normalized if torch.is_autocast_enabled(states.device.type) else normalized.to(states.dtype)


class ValorConditionEmbeddings(nn.Module):
    """Encoder tokens -> decoder conditions: width, position of the frame or clip, modality (section 4.2)."""

    def __init__(self, config: ValorConfig, encoder_size: int, max_positions: int):
        super().__init__()
        hidden_size, eps = config.text_config.hidden_size, config.text_config.layer_norm_eps
        self.projection: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        if encoder_size != hidden_size:
            self.projection = nn.Linear(encoder_size, hidden_size)
            self.norm = nn.LayerNorm(hidden_size, eps=eps)
        self.position_embedding = nn.Embedding(max_positions, hidden_size)
        self.type_embedding = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, frames, tokens, encoder_size) -> (batch_size, frames * tokens, hidden_size)."""
        if self.projection is not None and self.norm is not None:
            hidden_states = self.norm(self.projection(hidden_states))
        positions = self.position_embedding(torch.arange(hidden_states.shape[1], device=hidden_states.device))
        return (hidden_states + positions[:, None] + self.type_embedding).flatten(1, 2)


class ValorTokenWeight(nn.Module):
    """Logit of a token's weight in eq. 3; a two-layer MLP in the released checkpoints."""

    def __init__(self, size: int):
        super().__init__()
        self.fc1 = nn.Linear(size, size)
        self.fc2 = nn.Linear(size, 1)

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        """(batch_size, length, size) -> (batch_size, length)."""
        return self.fc2(F.relu(self.fc1(embeds))).squeeze(-1)


class ValorModel(ValorPreTrainedModel):
    """The encoders of VALOR, the common space in which they are aligned, and the decoder's stack without its head.

    `score` compares texts with videos and sounds, given as outputs of the processor. `get_text_embeds`, `get_video_embeds` and
    `get_audio_embeds` embed one modality; `get_text_features`, `get_video_features` and `get_audio_features` also return the
    outputs of the encoder. `compute_similarity` scores any two sets of embeddings. `forward` computes all of it for a batch of
    matching samples.
    """

    # Heads save it with this model, which does not need it
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: ValorConfig):
        super().__init__(config)
        self.text_model = ValorTextModel._from_config(config.text_config)
        self.text_encoder = None
        if config.text_encoder_config is not None:
            options = {"add_pooling_layer": False} if config.text_encoder_config.model_type == "bert" else {}
            self.text_encoder = build_part(config.text_encoder_config, **options)
        self.vision_model = build_vision_model(config.vision_config)
        self.audio_model = ValorAudioModel._from_config(config.audio_config)

        text_size = (config.text_encoder_config or config.text_config).hidden_size
        video_size, audio_size = vision_hidden_size(config.vision_config), config.audio_config.hidden_size
        self.video_condition = ValorConditionEmbeddings(config, video_size, config.max_frames)
        self.audio_condition = ValorConditionEmbeddings(config, audio_size, config.max_audio_clips)

        size = config.projection_dim
        self.text_projection = nn.Linear(text_size, size, bias=False)
        self.video_projection = nn.Linear(video_size, size, bias=False)
        self.audio_projection = nn.Linear(audio_size, size, bias=False)
        if config.alignment == "fine":
            self.text_token_weight = ValorTokenWeight(size)
            self.video_token_weight = ValorTokenWeight(size)
            self.audio_token_weight = ValorTokenWeight(size)
        elif config.audiovisual_fusion == "feature":
            self.audiovisual_projection = nn.Linear(2 * size, size)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ValorConditionEmbeddings):
            init.normal_(module.type_embedding, mean=0.0, std=self.config.initializer_range)
            if self.config.position_initializer_range is not None:
                init.normal_(module.position_embedding.weight, std=self.config.position_initializer_range)
        elif isinstance(module, ValorModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    # --- Encoders -----------------------------------------------------------------------------------------------------

    def text_attention_mask(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The given mask, or by default a mask of everything that is not padding."""
        if attention_mask is None:
            return cast(torch.Tensor, input_ids != self.config.text_config.pad_token_id)
        return attention_mask.bool()

    def prompt(self, name: str, device: torch.device) -> torch.Tensor | None:
        """A task prompt of the configuration as ids of shape (1, length)."""
        ids = getattr(self.config, name)
        return None if ids is None else torch.tensor([list(ids)], dtype=torch.long, device=device)

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """Text encoder: `last_hidden_state` of shape (batch_size, length, hidden_size), the prompt left out."""
        attention_mask = self.text_attention_mask(input_ids, attention_mask)
        prompt = self.prompt("retrieval_prompt_ids", input_ids.device)
        length = input_ids.shape[1]
        if self.text_encoder is None:
            outputs = self.text_model(
                input_ids, attention_mask, prompt_input_ids=prompt, is_causal=False, use_cache=False, **kwargs
            )
            outputs.hidden_states = tree_map_only(
                torch.Tensor, lambda states: states[:, -length:], outputs.hidden_states
            )
            return outputs
        # CLIP's text encoder takes no prompt (as in 2023)
        encoder_config = self.text_encoder.config
        if prompt is None or encoder_config.model_type == "clip_text_model":
            return self.text_encoder(input_ids, attention_mask, **kwargs)
        prompt_length = prompt.shape[1]
        positions = torch.cat([torch.arange(length), torch.arange(prompt_length)]).to(input_ids.device)
        token_type_ids = (torch.arange(length + prompt_length, device=input_ids.device) >= length).long()
        outputs = self.text_encoder(
            torch.cat([input_ids, prompt.expand(input_ids.shape[0], -1)], dim=1),
            F.pad(attention_mask, (0, prompt_length), value=True),
            position_ids=positions[None],
            token_type_ids=token_type_ids.expand(input_ids.shape[0], -1),
            **kwargs,
        )
        outputs.last_hidden_state = outputs.last_hidden_state[:, :length]
        outputs.hidden_states = tree_map_only(torch.Tensor, lambda states: states[:, :length], outputs.hidden_states)
        return outputs

    def encode_video(
        self, pixel_values_videos: torch.Tensor, frame_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Vision encoder: tokens (batch_size, frames, tokens, hidden_size) and one vector per frame."""
        if pixel_values_videos.ndim != 5:
            raise ValueError(
                "`pixel_values_videos` must have the shape (batch_size, frames, channels, height, width), got "
                f"{tuple(pixel_values_videos.shape)}. An image is a video of one frame."
            )
        return encode_frames(self.vision_model, pixel_values_videos, frame_mask, **kwargs)

    def encoded_frame_mask(self, frame_mask: torch.Tensor | None) -> torch.Tensor | None:
        """Mask of the frames that `encode_video` returns; fewer than went in if the encoder has a temporal stride."""
        return None if frame_mask is None else encoded_frame_mask(self.config.vision_config, frame_mask.bool())

    def encode_audio(
        self, input_features: torch.Tensor, audio_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Audio encoder: tokens (batch_size, clips, tokens, hidden_size) and one vector per clip; missing clips are 0."""
        if input_features.ndim != 4:
            raise ValueError(
                "`input_features` must have the shape (batch_size, clips, mel_bins, time), got "
                f"{tuple(input_features.shape)}."
            )
        return encode_each(partial(self.audio_model, **kwargs), input_features, audio_mask)

    # --- Conditions of the decoder ------------------------------------------------------------------------------------

    def embed_conditions(
        self,
        video_tokens: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_tokens: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
    ) -> ValorConditions:
        """Encoder tokens, (batch_size, frames or clips, tokens, hidden_size), as conditions of the decoder.

        Raises:
            `ValueError`: more frames or clips than there are embeddings for.
        """
        conditions = {}
        frame_mask = self.encoded_frame_mask(frame_mask)
        for name, tokens, mask, embed in (
            ("video", video_tokens, frame_mask, self.video_condition),
            ("audio", audio_tokens, audio_mask, self.audio_condition),
        ):
            if tokens is None:
                continue
            self.check_length(name, tokens.shape[1])
            conditions[name] = embed(tokens)
            if mask is not None:
                conditions[f"{name}_mask"] = mask.bool().repeat_interleave(tokens.shape[2], dim=1)
        return ValorConditions(**conditions)

    def check_length(self, name: str, length: int, stride: int = 1) -> None:
        """Raises a `ValueError` for more frames or clips, `stride` to an embedding, than the decoder has embeddings for."""
        limit = {"video": "max_frames", "audio": "max_audio_clips"}[name]
        most = getattr(self.config, limit)
        if length > most * stride:
            strided = f", {most * stride} frames at a temporal stride of {stride}" if stride > 1 else ""
            raise ValueError(
                f"The decoder has embeddings for `{limit}={most}`{strided}, but the {name} input has {length}. Sample fewer."
            )

    def encode_conditions(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorConditions:
        """Runs the encoders of what is given and makes conditions of the decoder from it.

        Raises:
            `ValueError`: more frames or clips than there are embeddings for; nothing is encoded then.
        """
        if pixel_values_videos is not None:
            stride = getattr(self.config.vision_config, "temporal_stride", 1)
            self.check_length("video", pixel_values_videos.shape[1], stride)
        if input_features is not None:
            self.check_length("audio", input_features.shape[1])
        video = None if pixel_values_videos is None else self.encode_video(pixel_values_videos, frame_mask, **kwargs)
        audio = None if input_features is None else self.encode_audio(input_features, audio_mask, **kwargs)
        return self.embed_conditions(
            None if video is None else video.last_hidden_state,
            frame_mask,
            None if audio is None else audio.last_hidden_state,
            audio_mask,
        )

    # --- Common space -------------------------------------------------------------------------------------------------

    def project_text(self, hidden_states: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        if self.config.alignment == "coarse":
            text_encoder_config = self.config.text_encoder_config
            if text_encoder_config is not None and text_encoder_config.model_type == "clip_text_model":
                # The end token has the largest id of CLIP's vocabulary
                rows = torch.arange(len(input_ids), device=hidden_states.device)
                hidden_states = hidden_states[rows, input_ids.argmax(dim=-1)]
            else:
                hidden_states = hidden_states[:, 0]
        return l2_normalize(self.text_projection(hidden_states))

    def project_pooled(self, pooled: torch.Tensor, mask: torch.Tensor | None, projection: nn.Linear) -> torch.Tensor:
        """Frame or clip vectors -> common space; with coarse alignment averaged over the valid ones before."""
        if self.config.alignment == "coarse":
            if mask is None:
                pooled = pooled.mean(dim=1)
            else:
                mask = mask.unsqueeze(-1).to(pooled)
                pooled = (pooled * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return l2_normalize(projection(pooled))

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[Any, ...] | BaseModelOutputWithPooling:
        r"""The text encoder's outputs, with text in the common space of section 4.2.

        Args:
            kwargs: `output_hidden_states`, `output_attentions` and other arguments of the encoder.

        Returns:
            `pooler_output`, L2-normalised, (batch_size, length, projection_dim), or (batch_size, projection_dim) with
            coarse alignment; `last_hidden_state` and `hidden_states`, (batch_size, length, hidden_size), the prompt left
            out; `attentions`, with the prompt.
        """
        outputs = self.encode_text(input_ids, attention_mask, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self.project_text(outputs["last_hidden_state"], input_ids),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos: torch.Tensor, frame_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[Any, ...] | BaseModelOutputWithPooling:
        r"""The vision encoder's outputs, with videos, (batch_size, frames, channels, height, width), in the common space.

        Returns:
            `pooler_output`, L2-normalised, (batch_size, frames, projection_dim), or (batch_size, projection_dim) with
            coarse alignment; `last_hidden_state`, (batch_size, frames, tokens, hidden_size). `hidden_states` and
            `attentions` have the axes of the encoder's, those of an image encoder after (batch_size, frames).
        """
        outputs = self.encode_video(pixel_values_videos, frame_mask, **kwargs)
        frame_mask = self.encoded_frame_mask(frame_mask)
        outputs.pooler_output = self.project_pooled(outputs["pooler_output"], frame_mask, self.video_projection)
        return outputs

    @can_return_tuple
    def get_audio_features(
        self, input_features: torch.Tensor, audio_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[Any, ...] | BaseModelOutputWithPooling:
        r"""The audio encoder's outputs, with sounds, (batch_size, clips, mel_bins, time), in the common space.

        Returns:
            `pooler_output`, L2-normalised, (batch_size, clips, projection_dim), or (batch_size, projection_dim) with
            coarse alignment; `last_hidden_state` and `hidden_states`, (batch_size, clips, tokens, hidden_size);
            `attentions`, (batch_size, clips, heads, tokens, tokens).
        """
        outputs = self.encode_audio(input_features, audio_mask, **kwargs)
        outputs.pooler_output = self.project_pooled(outputs["pooler_output"], audio_mask, self.audio_projection)
        return outputs

    def get_text_embeds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        r"""Text in the common space of section 4.2.

        Returns:
            L2-normalised, (batch_size, length, projection_dim); (batch_size, projection_dim) with coarse alignment.
        """
        return self.get_text_features(input_ids, attention_mask, **kwargs, return_dict=True).pooler_output

    def get_video_embeds(
        self, pixel_values_videos: torch.Tensor, frame_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        r"""Videos, (batch_size, frames, channels, height, width), in the common space.

        Returns:
            L2-normalised, (batch_size, frames, projection_dim); (batch_size, projection_dim) with coarse alignment.
        """
        return self.get_video_features(pixel_values_videos, frame_mask, **kwargs, return_dict=True).pooler_output

    def get_audio_embeds(
        self, input_features: torch.Tensor, audio_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        r"""Sounds, (batch_size, clips, mel_bins, time), in the common space.

        Returns:
            L2-normalised, (batch_size, clips, projection_dim); (batch_size, projection_dim) with coarse alignment.
        """
        return self.get_audio_features(input_features, audio_mask, **kwargs, return_dict=True).pooler_output

    # --- Alignment ----------------------------------------------------------------------------------------------------

    def embed_texts(self, texts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """First half of [`ValorModel.score`]: what `compute_similarity` takes of texts.

        Args:
            texts: `processor(text=..., return_tensors="pt")`.

        Returns:
            `text_embeds`, as of `get_text_embeds`, and `attention_mask`, (texts, length).

        Raises:
            `ValueError`: there is no text among the inputs.
        """
        if texts.get("input_ids") is None:
            raise ValueError(f"Texts to score need `input_ids`; given are {list(texts)}.")
        attention_mask = self.text_attention_mask(texts["input_ids"], texts.get("attention_mask"))
        return {
            "text_embeds": self.get_text_embeds(texts["input_ids"], attention_mask),
            "attention_mask": attention_mask,
        }

    def embed_media(self, media: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Second half of [`ValorModel.score`]: what `compute_similarity` takes of videos and sounds.

        Args:
            media: `processor(videos=..., audio=..., return_tensors="pt")`, or the `processor.pad` of several of them.

        Returns:
            `video_embeds` and `audio_embeds`, as of `get_video_embeds` and `get_audio_embeds`, of what is given, with
            `frame_mask`, (media, frames), and `audio_mask`, (media, clips), where something is missing.

        Raises:
            `ValueError`: there are neither frames nor sounds among the inputs.
        """
        embeds = {}
        for modality in MEDIA:
            inputs, mask = media.get(modality.input), media.get(modality.mask)
            if inputs is not None:
                embeds[f"{modality.name}_embeds"] = getattr(self, f"get_{modality.name}_embeds")(inputs, mask)
                if mask is not None:
                    embeds[modality.mask] = mask
        if not embeds:
            raise ValueError(
                f"Media to score need `pixel_values_videos`, `input_features` or both; given are {list(media)}."
            )
        return embeds

    def score(
        self, texts: Mapping[str, torch.Tensor], media: Mapping[str, torch.Tensor], group: str = "t-av"
    ) -> torch.Tensor:
        """Scores every text against every video or sound (eq. 3), without temperature.

        What is missing, of one sample or of all, is left out: a silent clip gets the score of its frames.
        To index media, keep what `embed_media` returns: `compute_similarity(**embed_texts(texts), **embed_media(media))`
        is the same.

        Args:
            texts: `processor(text=..., return_tensors="pt")`.
            media: `processor(videos=..., audio=..., return_tensors="pt")`.
            group (`str`): `"t-v"` scores by the frames only, `"t-a"` by the sound only.

        Returns:
            (texts, media); `-inf` for media that lack the group's modalities altogether.

        Raises:
            `ValueError`: texts without `input_ids`, media without the group's modalities, or a group without texts in
                its rows.
        """
        return self.compute_similarity(**self.embed_texts(texts), **self.embed_media(media), group=group)

    def compute_similarity(
        self,
        text_embeds: torch.Tensor | None = None,
        video_embeds: torch.Tensor | None = None,
        audio_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        group: str = "t-av",
    ) -> torch.Tensor:
        r"""Scores every query against every candidate (eq. 3), without temperature.

        Args:
            text_embeds, video_embeds, audio_embeds: what `get_text_embeds` and the others return. Rows and columns may
                differ in number; video and audio that form one side must agree.
            attention_mask, frame_mask, audio_mask: the masks that belong to them.
            group (`str`): modality group; items of its first letter are the rows.

        Returns:
            (queries, candidates); `-inf` for an item that lacks the modality altogether. Token similarities are computed
            in blocks, never all at once.
        """
        given = [
            name
            for name, embeds in (("text", text_embeds), ("video", video_embeds), ("audio", audio_embeds))
            if embeds is not None
        ]
        self.config.select_groups("alignment_groups", [group], given)
        frame_mask = self.encoded_frame_mask(frame_mask)
        return self.compute_similarities(
            [group], text_embeds, video_embeds, audio_embeds, attention_mask, frame_mask, audio_mask
        )[group]

    def compute_similarities(
        self,
        groups: Sequence[str],
        text_embeds: torch.Tensor | None = None,
        video_embeds: torch.Tensor | None = None,
        audio_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`compute_similarity` for several groups in one pass over the token similarities."""
        sets = self.token_sets(
            (text_embeds, video_embeds, audio_embeds),
            (attention_mask, frame_mask, audio_mask),
            with_audiovisual="t-av" in groups,
        )
        if self.config.alignment == "coarse":
            return coarse_similarities(groups, sets["text"], sets)
        return grouped_similarity(sets["text"], sets["video"], sets["audio"], groups, **self.similarity_options)

    @property
    def similarity_options(self) -> dict[str, Any]:
        """Arguments of [`~alignment.grouped_similarity`] that the configuration decides."""
        return {
            "fusion": self.config.audiovisual_fusion,
            "uniform_audiovisual": self.config.token_weighting == "uniform",
        }

    def token_sets(
        self, embeds: Sequence[torch.Tensor | None], masks: Sequence[torch.Tensor | None], with_audiovisual: bool
    ) -> dict[str, TokenSet | None]:
        """What is compared of text, video and audio, None where there are no embeddings.

        With coarse alignment a sample is a set of one token, and there is a fourth set, "audiovisual": the joint embedding
        of feature fusion, None without it.
        """
        sets: dict[str, TokenSet | None] = {}
        for modality, tokens, mask in zip(MODALITIES, embeds, masks, strict=True):
            name, mask = modality.name, None if mask is None else mask.bool()
            if tokens is None:
                sets[name] = None
            elif self.config.alignment == "coarse":
                sets[name] = TokenSet(tokens[:, None], None if mask is None else mask.any(dim=1, keepdim=True))
            else:
                weight_logits = getattr(self, f"{name}_token_weight")(tokens)
                zero_padding = name == "text" and self.config.padded_similarity == "zero"
                sets[name] = TokenSet(tokens, mask, weight_logits, zero_padding)
        if self.config.alignment == "coarse":
            sets["audiovisual"] = self.fuse(sets["video"], sets["audio"]) if with_audiovisual else None
        return sets

    def fuse(self, video: TokenSet | None, audio: TokenSet | None) -> TokenSet | None:
        """The joint embedding of coarse alignment, or None where it is not used: a sum of scores takes its place."""
        if self.config.audiovisual_fusion != "feature" or video is None or audio is None:
            return None
        fused = l2_normalize(self.audiovisual_projection(torch.cat([video.embeds, audio.embeds], dim=-1)))
        # A sample that lacks one modality is scored by the other alone
        if audio.mask is not None:
            fused = torch.where(audio.mask[..., None], fused, video.embeds)
        if video.mask is not None:
            fused = torch.where(video.mask[..., None], fused, audio.embeds)
        return TokenSet(fused)

    def alignment_loss(
        self,
        groups: Sequence[str],
        embeds: Sequence[torch.Tensor | None],
        masks: Sequence[torch.Tensor | None],
        all_ranks: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The contrastive loss of matching samples.

        Args:
            embeds, masks: of text, video and audio, as of `compute_similarity`.
            all_ranks: whether other ranks' samples are compared with.

        Returns:
            The mean of the losses of those modality groups that any sample has (eq. 4), the loss of each group, and its
            scores, as in [`ValorOutput`].
        """
        if not (all_ranks and is_distributed()):
            similarity = self.compute_similarities(groups, *embeds, *masks)
            samples = RankSamples((len(next(iter(similarity.values()))),))
        else:
            sets = self.token_sets(embeds, masks, with_audiovisual="t-av" in groups)
            if self.config.alignment == "coarse":
                names = [name for name, tokens in sets.items() if name != "text" and tokens is not None]
                candidates, samples = gather_tokens(sets, names)
                similarity = coarse_similarities(groups, sets["text"], candidates)
            else:
                similarity, samples = similarity_over_ranks(
                    sets["text"], sets["video"], sets["audio"], groups, **self.similarity_options
                )
        losses, present = contrastive_losses(similarity, self.logit_scale, samples)
        return mean_of_groups(list(losses.values()), present), losses, similarity

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        alignment_groups: Sequence[str] | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorOutput:
        r"""Embeds a batch and scores every sample against every other.

        Args:
            alignment_groups (`list[str]`, *optional*): by default those of the configuration for which inputs are given.
            return_loss (`bool`, *optional*): whether to compute the contrastive loss (eq. 2 and 4). In training with
                several processes it then sees the samples of all of them; in evaluation mode only those given.

        Raises:
            `ValueError`: no input at all, or a requested group that lacks its inputs.
        """
        inputs = {"text": input_ids, "video": pixel_values_videos, "audio": input_features}
        given = [name for name, value in inputs.items() if value is not None]
        if not given:
            raise ValueError("Give at least one of `input_ids`, `pixel_values_videos` and `input_features`.")
        groups = self.config.select_groups("alignment_groups", alignment_groups, given)
        if return_loss and not groups:
            raise ValueError(
                f"None of the alignment groups {list(self.config.alignment_groups)} can be computed from {given} alone, "
                "so there is no loss to return."
            )

        text = video = audio = text_embeds = video_embeds = audio_embeds = None
        if input_ids is not None:
            attention_mask = self.text_attention_mask(input_ids, attention_mask)
            text = self.encode_text(input_ids, attention_mask, **kwargs)
            text_embeds = self.project_text(text["last_hidden_state"], input_ids)
        if pixel_values_videos is not None:
            video = self.encode_video(pixel_values_videos, frame_mask, **kwargs)
            frame_mask = self.encoded_frame_mask(frame_mask)
            video_embeds = self.project_pooled(video["pooler_output"], frame_mask, self.video_projection)
        if input_features is not None:
            audio = self.encode_audio(input_features, audio_mask, **kwargs)
            audio_embeds = self.project_pooled(audio["pooler_output"], audio_mask, self.audio_projection)

        embeds, masks = (text_embeds, video_embeds, audio_embeds), (attention_mask, frame_mask, audio_mask)
        loss = losses = None
        if return_loss:
            loss, losses, similarity = self.alignment_loss(groups, embeds, masks, all_ranks=self.training)
        else:
            similarity = self.compute_similarities(groups, *embeds, *masks)

        return ValorOutput(
            loss=loss,
            alignment_losses=losses,
            similarity=similarity,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            audio_embeds=audio_embeds,
            text_model_output=text,
            vision_model_output=video,
            audio_model_output=audio,
        )


__all__ = ["ValorModel", "ValorOutput", "ValorPreTrainedModel"]
