# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Configurations of VALOR and of its parts."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_checks import check_values
from .configuration_parts import config_fields, load_part_config, vision_fields
from .tokenization_valor import TASK_PROMPTS, encode_prompts, load_tokenizer, special_token_ids, translate_prompts


class Modality(NamedTuple):
    """A modality, and how it reaches the models.

    letter: stands for it in the name of a modality group.
    input, mask: the model inputs that carry it and say what of it is valid.
    """

    letter: str
    name: str
    input: str
    mask: str


TEXT = Modality("t", "text", "input_ids", "attention_mask")
VIDEO = Modality("v", "video", "pixel_values_videos", "frame_mask")
AUDIO = Modality("a", "audio", "input_features", "audio_mask")

MODALITIES = (TEXT, VIDEO, AUDIO)
MEDIA = (VIDEO, AUDIO)
"""What text is aligned with and captions are conditioned on; video before audio everywhere in VALOR."""

MODALITY_INPUTS = {modality.name: modality.input for modality in MODALITIES}
"""The model input that carries each modality."""

MASKS = {modality.input: modality.mask for modality in MEDIA}
"""Media inputs, (B, F or A, ...), and the masks, (B, F or A), that say what of them is present."""

ALIGNMENT_GROUPS = {
    "t-v": ("text", ("video",)),
    "t-a": ("text", ("audio",)),
    "t-av": ("text", ("video", "audio")),
    "v-a": ("video", ("audio",)),
    "a-tv": ("audio", ("text", "video")),
    "v-ta": ("video", ("text", "audio")),
}
"""Modality groups of MGA (Table 8): the query, whose samples are the rows of a score matrix, and the candidates."""

CAPTIONING_GROUPS = {group: candidates for group, (query, candidates) in ALIGNMENT_GROUPS.items() if query == "text"}
"""Modality groups of MGC (Table 9): what the decoder is conditioned on."""

GROUP_OF_MODALITIES = {conditions: group for group, conditions in CAPTIONING_GROUPS.items()}
GROUP_OF_LETTERS = {group.removeprefix("t-"): group for group in CAPTIONING_GROUPS}
"""The group of text and these modalities, by their names and by their letters, "v", "a" or "av"."""

CROSS_ATTENTION_BLOCKS = {
    "concat": ("audiovisual",),
    "parallel": ("video", "audio"),
    "audio_visual": ("audio", "video"),
    "visual_audio": ("video", "audio"),
    "merge": (),
}
"""Cross-attention blocks of a decoder layer, in the order in which they are applied (Figure 7)."""

ENCODER_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
TEXT_SIZES = (*ENCODER_SIZES, "vocab_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps")
AUDIO_SIZES = (*ENCODER_SIZES, "patch_size", "layer_norm_eps")
"""Fields that the tensors of a BERT and of an AST fix, under their names both here and there."""

VIDEO_ENCODER_FIELDS = ("num_frames", "frames_per_clip", "tubelet_size")
"""Fields by which the configurations of VideoMAE, ViViT, TimeSformer, V-JEPA and their like are known."""


@strict
class ValorTextConfig(PreTrainedConfig):
    r"""Configuration of [`ValorTextModel`], the BERT stack that is both text encoder and multimodal decoder (section 4.1).

    Field names and defaults are those of BERT-base; `mask_token_id` is the id of the [MASK] token that stands for the
    word to predict (section 4.2), and `cross_attention_type` says which cross-attention blocks a layer has (Figure 7).
    """

    model_type = "valor_text"
    base_config_key = "text_config"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = 101
    eos_token_id: int | list[int] | None = 102
    mask_token_id: int = 103
    cross_attention_type: Literal["concat", "parallel", "audio_visual", "visual_audio", "merge"] = "concat"
    use_cache: bool = True
    tie_word_embeddings: bool = True

    def validate_architecture(self) -> None:
        """The hidden size must be a multiple of the number of attention heads."""
        check_values(self)
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )


@strict
class ValorVideoSwinConfig(PreTrainedConfig):
    r"""Configuration of [`ValorVideoSwinModel`], the Video Swin Transformer of VALOR-base (Swin-B by default).

    embed_dim (`int`): channels of the first stage; each following stage doubles them.
    window_size (`tuple[int, int, int]`): attention window in (frames, rows, columns) of tokens.
    patch_size (`tuple[int, int, int]`): frames, rows and columns of pixels that make a token.
    temporal_stride (`int`): frames from one token to the next; 1 gives one grid of tokens per frame.
    """

    model_type = "valor_video_swin"
    base_config_key = "vision_config"

    image_size: int = 224
    patch_size: list[int] | tuple[int, ...] = (2, 4, 4)
    temporal_stride: int = 1
    num_channels: int = 3
    embed_dim: int = 128
    depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    num_heads: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    window_size: list[int] | tuple[int, ...] = (8, 7, 7)
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("patch_size", "depths", "num_heads", "window_size"):
            setattr(self, name, list(getattr(self, name)))
        kwargs.pop("hidden_size", None)
        kwargs.pop("num_hidden_layers", None)
        super().__post_init__(**kwargs)
        # What composite models read of any vision encoder
        self.hidden_size = self.embed_dim * 2 ** (len(self.depths) - 1)
        self.num_hidden_layers = len(self.depths)

    def validate_architecture(self) -> None:
        """Stages must agree in number, and each width must be a multiple of the stage's heads."""
        check_values(self)
        if len(self.depths) != len(self.num_heads):
            raise ValueError(
                f"`depths` ({self.depths}) and `num_heads` ({self.num_heads}) must have one entry per stage."
            )
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim * 2**stage) % heads != 0:
                raise ValueError(
                    f"The width of stage {stage} ({self.embed_dim * 2**stage}) must be a multiple of its "
                    f"{heads} attention heads."
                )


@strict
class ValorAudioConfig(PreTrainedConfig):
    r"""Configuration of [`ValorAudioModel`], the Audio Spectrogram Transformer (section 4.1).

    num_mel_bins (`int`): height of a clip's spectrogram.
    max_length (`int`): its width in 10 ms frames; 512 frames are 5.12 s.
    patch_size (`int`): side of a square patch; patches do not overlap.
    """

    model_type = "valor_audio"
    base_config_key = "audio_config"

    num_mel_bins: int = 64
    max_length: int = 512
    patch_size: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """Heads must divide the width, and a spectrogram must hold at least one patch."""
        check_values(self)
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if min(self.num_mel_bins, self.max_length) < self.patch_size:
            raise ValueError(
                f"A spectrogram of {self.num_mel_bins} x {self.max_length} does not hold one patch of side "
                f"{self.patch_size}."
            )


# `pipeline("any-to-any")` and `transformers serve` look models up by this name
MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.setdefault("valor", "ValorForCaptioning")

# Here, not in `__init__`, which does not travel with remote code; that of an installed package is kept
for _part in (ValorTextConfig, ValorVideoSwinConfig, ValorAudioConfig):
    if _part.model_type not in CONFIG_MAPPING:
        AutoConfig.register(_part.model_type, _part)


@strict
class ValorConfig(PreTrainedConfig):
    r"""Configuration of [`ValorModel`] and its heads. Defaults are the paper's VALOR-large.

    Args:
        vision_config: `clip_vision_model`, `valor_video_swin` or any transformers vision encoder that returns patch tokens.
        audio_config: `valor_audio`.
        text_config: `valor_text`, the stack that is text encoder and decoder at once.
        text_encoder_config: `None` when the text encoder is the decoder's stack (the default, section 4.1), else a
            `bert` or `clip_text_model` configuration.
        projection_dim (`int`): width C of the common space of section 4.2.
        alignment: `"fine"` scores every text token against every frame and clip (eq. 3), `"coarse"` one vector each (Table 10).
        audiovisual_fusion: `"feature"` joins frames and clips before scoring, `"score"` adds the two scores (Table 10).
        token_weighting: weights of eq. 3 for t-av, `"learned"` or `"uniform"` (Table 10).
        cross_attention_type: that of `text_config`, how the decoder attends to video and audio (Figure 7, Table 11).
        alignment_groups: modality groups of MGA (Table 8).
        captioning_groups: modality groups of MGC (Table 9).
        alignment_loss_weight (`float`): alpha of eq. 7 (Table 12).
        captioning_objective: `"masked"` (section 4.2) or `"causal"` (next word, no masks).
        mask_probability (`float`): share of the words that MGC masks.
        label_smoothing (`float`): used by [`ValorForCaptioning`] only.
        max_frames, max_audio_clips (`int`): rows of the frame and clip embeddings.
        logit_scale_init_value (`float`): logarithm of the initial inverse temperature; the default is ln(1 / 0.07).
        padded_similarity: `"exclude"` leaves padded text out of the maxima (eq. 3), `"zero"` counts it with
            similarity 0, as the released checkpoints were trained.
        retrieval_prompt_ids, caption_prompt_ids, question_prompt_ids: token ids of the task prompts, `None` for no prompt.
            The first two are appended to the text of the encoder and of the decoder with their own [CLS] and [SEP]; the
            third is inserted after the question's [CLS].
        initializer_range (`float`): standard deviation of new projections.
        position_initializer_range (`float`, *optional*): that of new frame and clip embeddings, which are added to
            normalised tokens. `None` is `initializer_range`, as in the 2023 code; 0.5 makes them half as large as those
            tokens, for a model that is trained from scratch.
    """

    model_type = "valor"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="clip_vision_model",
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "audio_config": ValorAudioConfig,
        "text_config": ValorTextConfig,
        "text_encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True),
    }

    if TYPE_CHECKING:  # what they are once they are given, as fields (dict), or left out (None)
        vision_config: PreTrainedConfig
        audio_config: ValorAudioConfig
        text_config: ValorTextConfig
        text_encoder_config: PreTrainedConfig | None

        def __init__(self, **kwargs: Any) -> None: ...
    else:
        vision_config: dict | PreTrainedConfig | None = None
        audio_config: dict | PreTrainedConfig | None = None
        text_config: dict | PreTrainedConfig | None = None
        text_encoder_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    alignment: Literal["fine", "coarse"] = "fine"
    audiovisual_fusion: Literal["feature", "score"] = "feature"
    token_weighting: Literal["learned", "uniform"] = "learned"
    alignment_groups: list[str] | tuple[str, ...] = ("t-v", "t-a", "t-av")
    captioning_groups: list[str] | tuple[str, ...] = ("t-v", "t-a", "t-av")
    alignment_loss_weight: float | int = 1.5
    captioning_objective: Literal["masked", "causal"] = "masked"
    mask_probability: float | int = 0.6
    label_smoothing: float | int = 0.0
    max_frames: int = 32
    max_audio_clips: int = 32
    logit_scale_init_value: float | int = 2.6592
    padded_similarity: Literal["exclude", "zero"] = "exclude"
    retrieval_prompt_ids: list[int] | tuple[int, ...] | None = None
    caption_prompt_ids: list[int] | tuple[int, ...] | None = None
    question_prompt_ids: list[int] | tuple[int, ...] | None = None
    initializer_range: float = 0.02
    position_initializer_range: float | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.alignment_groups = list(self.alignment_groups)
        self.captioning_groups = list(self.captioning_groups)
        # Tasks of an installed package need no code of the checkpoint, for which users would have to vouch
        custom_pipelines = kwargs.pop("custom_pipelines", None) or {}
        if any(task not in PIPELINE_REGISTRY.supported_tasks for task in custom_pipelines):
            kwargs["custom_pipelines"] = custom_pipelines
        cross_attention_type = kwargs.pop("cross_attention_type", None)
        super().__post_init__(**kwargs)
        if cross_attention_type is not None:  # a field of its own in configurations before it was one of `text_config`
            self.cross_attention_type = cross_attention_type

    @property
    def cross_attention_type(self) -> Any:
        """That of `text_config`, whose layers have the blocks."""
        return self.text_config.cross_attention_type

    @cross_attention_type.setter
    def cross_attention_type(self, value: Any) -> None:
        self.text_config.cross_attention_type = value

    @classmethod
    def from_parts(
        cls,
        text: str | os.PathLike[str] | PreTrainedConfig | None = None,
        vision: str | os.PathLike[str] | PreTrainedConfig | Mapping[str, Any] | None = None,
        audio: str | os.PathLike[str] | PreTrainedConfig | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task_prompts: bool = False,
        **kwargs: Any,
    ) -> "ValorConfig":
        r"""Configuration of a new model whose parts start from pretrained checkpoints, with the sizes of these.

        Args:
            text: a BERT, whose sizes are those of text encoder and decoder.
            vision: a vision encoder, or a CLIP, SigLIP or VALOR, of which it is the vision part.
            audio: an AST, whose sizes the audio encoder takes; its spectrograms stay VALOR's (64 mel bins, 5.12 s).
            tokenizer: what `pad_token_id` and its like, and the task prompts, have their ids of. By default that of `text`.
            task_prompts (`bool`): whether to use the task prompts of the released VALOR-large.
            kwargs: other fields. Those of a part, such as `text_config={"hidden_dropout_prob": 0.0}`, count where the
                checkpoint fixes nothing: dropout, spectrograms, and the resolution (`image_size`) of a CLIP.

        Raises:
            `ValueError`: a checkpoint is of another type, or the tokenizer has more words than `text` embeds.

        ```python
        >>> config = ValorConfig.from_parts(
        ...     text="google-bert/bert-base-uncased",
        ...     vision="openai/clip-vit-large-patch14",
        ...     audio="MIT/ast-finetuned-audioset-10-10-0.4593",
        ... )
        ```
        """
        if text is not None:
            bert = load_part_config(text, "bert")
            sizes = {name: getattr(bert, name) for name in TEXT_SIZES}
            kwargs["text_config"] = {**config_fields(kwargs.get("text_config")), **sizes}
            encoder = config_fields(kwargs.get("text_encoder_config"))
            if encoder.get("model_type") == "bert":
                kwargs["text_encoder_config"] = {**encoder, **sizes}
            if tokenizer is None and not isinstance(text, PreTrainedConfig):
                tokenizer = load_tokenizer(text)
        if vision is not None:
            kwargs["vision_config"] = vision_fields(vision, config_fields(kwargs.get("vision_config")))
        if audio is not None:
            ast = load_part_config(audio, "audio-spectrogram-transformer")
            sizes = {name: getattr(ast, name) for name in AUDIO_SIZES}
            kwargs["audio_config"] = {**config_fields(kwargs.get("audio_config")), **sizes}
        if tokenizer is not None:
            kwargs["text_config"] = {**config_fields(kwargs.get("text_config")), **special_token_ids(tokenizer)}
            kwargs |= translate_prompts({name: kwargs.get(name) for name in TASK_PROMPTS}, tokenizer)
        if task_prompts:
            if tokenizer is None:
                raise ValueError("Task prompts need the `tokenizer` whose ids they get, or the checkpoint of `text`.")
            kwargs |= encode_prompts(TASK_PROMPTS, tokenizer)
        config = cls(**kwargs)
        if tokenizer is not None and len(tokenizer) > config.text_config.vocab_size:
            raise ValueError(
                f"The tokenizer has {len(tokenizer)} words, but the text model embeds {config.text_config.vocab_size}: "
                "they are of different checkpoints."
            )
        return config

    def validate_values(self) -> None:
        """Sizes, rates and deviations must be numbers that a model can have, also those of encoders of transformers."""
        check_values(self)
        check_values(self.vision_config, "vision_config.")
        if self.text_encoder_config is not None:
            check_values(self.text_encoder_config, "text_encoder_config.")

    def validate_vision(self) -> None:
        """The vision encoder must encode images, each by itself and whole, or be the Video Swin of this package."""
        vision = self.vision_config
        if fixed := [name for name in VIDEO_ENCODER_FIELDS if getattr(vision, name, None) is not None]:
            raise ValueError(
                f"The vision encoder {vision.model_type!r} takes videos of a fixed length (`{fixed[0]}`), while VALOR needs "
                "tokens of every single frame: an encoder of images, such as 'clip_vision_model', 'siglip_vision_model', "
                "'vit', 'dinov2' or 'convnext', or 'valor_video_swin' is accepted."
            )
        if vision.model_type == "vit_mae" and vision.mask_ratio > 0:
            raise ValueError(
                f"The vision encoder {vision.model_type!r} would hide {vision.mask_ratio:.0%} of each frame at random: set "
                "its `mask_ratio` to 0."
            )

    def validate_groups(self) -> None:
        """Every modality group must be a known one, and coarse alignment knows the three text groups only."""
        self.check_groups(self.alignment_groups, "alignment_groups")
        self.check_groups(self.captioning_groups, "captioning_groups")

    def check_groups(self, groups: Iterable[str], name: Literal["alignment_groups", "captioning_groups"]) -> None:
        """Raises a `ValueError` that names the first of `groups` that `name` does not accept."""
        known = list(ALIGNMENT_GROUPS if name == "alignment_groups" else CAPTIONING_GROUPS)
        if name == "alignment_groups" and self.alignment == "coarse":
            known = list(CAPTIONING_GROUPS)
        unknown = [group for group in groups if group not in known]
        if unknown:
            raise ValueError(
                f"`{name}` holds {unknown[0]!r}, but a modality group must be one of {known}"
                + (" with coarse alignment." if self.alignment == "coarse" else ".")
            )

    def select_groups(
        self,
        name: Literal["alignment_groups", "captioning_groups"],
        requested: Sequence[str] | None,
        given: Sequence[str],
    ) -> list[str]:
        """Modality groups to compute, from what was asked for and from the modalities given.

        Without a request they are those of this configuration that can be computed. A group that lacks one modality
        of a side for the whole batch works with the other ("t-av" without sound is text against video), unless
        another group already is just that.

        Raises:
            `ValueError`: a requested group is unknown, or a whole side of it is missing.
        """
        if requested is not None:
            self.check_groups(requested, name)
        groups = list(getattr(self, name) if requested is None else requested)
        sides = {group: group_sides(name, group) for group in groups}
        present = {group: [[m for m in side if m in given] for side in sides[group]] for group in groups}
        computable = [group for group in groups if all(present[group])]
        if requested is None:
            complete = [present[group] for group in groups if present[group] == sides[group]]
            return [group for group in computable if present[group] == sides[group] or present[group] not in complete]
        for group in groups:
            if group not in computable:
                missing = [MODALITY_INPUTS[m] for side in sides[group] for m in side if m not in given]
                raise ValueError(
                    f"The modality group {group!r} needs {' or '.join(f'`{m}`' for m in missing)}, not given."
                )
        return groups

    def validate_fractions(self) -> None:
        """Probabilities must lie between 0 and 1."""
        if not 0 < self.mask_probability <= 1:
            raise ValueError(f"`mask_probability` must be above 0 and at most 1, got {self.mask_probability}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be at least 0 and below 1, got {self.label_smoothing}.")


def group_sides(name: Literal["alignment_groups", "captioning_groups"], group: str) -> list[list[str]]:
    """The modalities of a group: of its queries and of its candidates in alignment, of its conditions in captioning."""
    if name == "captioning_groups":
        return [list(CAPTIONING_GROUPS[group])]
    query, candidates = ALIGNMENT_GROUPS[group]
    return [[query], list(candidates)]


__all__ = ["ValorAudioConfig", "ValorConfig", "ValorTextConfig", "ValorVideoSwinConfig"]
