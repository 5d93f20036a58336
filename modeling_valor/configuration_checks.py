# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Ranges of the values of configurations and processors, checked before memory of these sizes is allocated."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.image_utils import SizeDict


POSITIVE_FIELDS = (
    "vocab_size", "hidden_size", "hidden_sizes", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "type_vocab_size", "max_position_embeddings", "image_size", "patch_size", "num_channels", "temporal_stride", "embed_dim",
    "depths", "num_heads", "window_size", "mlp_ratio", "num_mel_bins", "max_length", "projection_dim", "max_frames",
    "max_audio_clips", "layer_norm_eps",
)  # fmt: skip
RATE_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "drop_path_rate", "dropout")

Range = tuple[Callable[[Any], bool], str]
"""Whether a number is accepted, and the accepted numbers in words."""

POSITIVE: Range = (lambda value: 0 < value < 2**31, "above 0 and below 2**31")
RATE: Range = (lambda value: 0 <= value < 1, "at least 0 and below 1")
NOT_NEGATIVE: Range = (lambda value: 0 <= value < 2**31, "at least 0 and below 2**31")

CONFIGURATION_RANGES: dict[str, Range] = {
    **dict.fromkeys(POSITIVE_FIELDS, POSITIVE),
    **dict.fromkeys(RATE_FIELDS, RATE),
    **dict.fromkeys(("initializer_range", "position_initializer_range", "alignment_loss_weight"), NOT_NEGATIVE),
    "logit_scale_init_value": (lambda value: -20 <= value <= 20, "between -20 and 20"),  # it is an exponent
}
"""Fields of all configurations, of this package and of transformers' encoders: what is accepted."""


def between(least: float, most: float) -> Range:
    return (lambda value: least <= value <= most, f"between {least:g} and {most:g}")


PROCESSOR_RANGES: dict[str, Range] = {
    **dict.fromkeys(("size", "crop_size"), between(1, 2**14)),
    **dict.fromkeys(("num_frames", "num_audio_clips"), between(1, 1e5)),
    **dict.fromkeys(("image_mean", "mean"), between(-1e6, 1e6)),
    **dict.fromkeys(("image_std", "std"), between(1e-9, 1e6)),
    "rescale_factor": (lambda value: 1e-9 <= abs(value) <= 1e6, "between 1e-09 and 1e+06, or the negative of that"),
    "feature_size": between(1, 4096),
    "clip_length": between(1, 1e6),
    "sampling_rate": between(1, 1e6),
    **dict.fromkeys(("frame_length_ms", "frame_shift_ms"), between(1e-2, 1e4)),
    "max_whole_seconds": between(1e-3, 1e6),
    "padding_value": between(-1e6, 1e6),
}
"""Fields of the video processor and of the feature extractor."""

MAX_LAYERS = 1000
MAX_PARAMETERS = 10**11
"""Far above any existing encoder: a configuration that exceeds them is damaged, or made to fill the memory."""


def check_ranges(values: Any, ranges: Mapping[str, Range], part: str = "") -> None:
    """Checks the fields of `values`, an object or a mapping, that `ranges` names and that are numbers or lists of numbers.

    Raises:
        `ValueError`: a value is outside its range, as NaN always is.
    """
    for name, (accepts, accepted) in ranges.items():
        if not all(map(accepts, numbers(values, name))):
            raise ValueError(f"`{part}{name}` must be {accepted}, got {field(values, name)!r}.")


def check_values(config: PreTrainedConfig, part: str = "") -> None:
    """Checks the numbers of a configuration, its activation, and that its sizes are possible.

    Raises:
        `ValueError`: a value is outside its range, or the sizes are too large.
    """
    check_ranges(config, CONFIGURATION_RANGES, part)
    activation = field(config, "hidden_act")
    if isinstance(activation, str) and activation not in ACT2FN:
        raise ValueError(
            f"`{part}hidden_act` must be an activation of transformers, such as 'gelu', got {activation!r}."
        )
    layers = sum(numbers(config, "depths") or numbers(config, "num_hidden_layers"))
    parameters = estimate_parameters(config, layers)
    if layers > MAX_LAYERS or parameters > MAX_PARAMETERS:
        raise ValueError(
            f"The sizes of `{part.rstrip('.') or config.model_type}` are those of a model of {layers:,} layers and about "
            f"{parameters:.1e} parameters; at most {MAX_LAYERS:,} and {MAX_PARAMETERS:.0e} are accepted."
        )


def estimate_parameters(config: PreTrainedConfig, layers: float) -> float:
    """Roughly the parameters of one stack: embeddings, attention, feed-forward, position biases of windows, projections."""

    def largest(name: str, default: float = 0) -> float:
        return max(numbers(config, name), default=default)

    width = largest("hidden_size") or largest("hidden_sizes")
    feed_forward = largest("intermediate_size") or width * largest("mlp_ratio", 4)
    patch = largest("patch_size", 1)
    rows = sum(map(largest, ("vocab_size", "max_position_embeddings", "max_frames", "max_audio_clips")))
    rows += (largest("image_size") / patch) ** 2 + largest("num_mel_bins") * largest("max_length") / patch**2
    biases = math.prod(2 * size for size in numbers(config, "window_size")) * largest("num_heads")
    block = 4 * width**2 + 2 * width * feed_forward + biases
    return width * rows + layers * block + 6 * largest("projection_dim") ** 2


def numbers(values: Any, name: str) -> list[float]:
    """A field as a list of numbers; empty where it is absent or something else."""
    value = field(values, name)
    if isinstance(value, (Mapping, SizeDict)):
        value = list(dict(value).values())
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [entry for entry in entries if isinstance(entry, (int, float)) and not isinstance(entry, bool)]


def field(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, Mapping) else getattr(values, name, None)
