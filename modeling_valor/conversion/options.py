# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Options of the 2023 training program, its hps.json."""

import functools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, TypeVar


P = ParamSpec("P")
R = TypeVar("R")


class ConversionError(ValueError):
    """A file or an option from which no model can be made; the message names what is wrong and what is accepted."""


def listing(names: Iterable[str], limit: int, quote: str = "`") -> str:
    """The first `limit` names as one enumeration, and how many more there are."""
    names = list(names)
    shown = ", ".join(f"{quote}{name}{quote}" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


# What the 2023 program takes where its hps.json does not say. The text encoder's default there is CLIP; no released
# configuration leaves it out.
DEFAULT_OPTIONS: dict[str, Any] = {
    "video_encoder_type": None,
    "txt_encoder_type": "bert_base_uncased",
    "audio_encoder_type": "ast",
    "multimodal_encoder_type": "bert_base_uncased",
    "multimodal_use_cross_attn": True,
    "share_txt_and_multimodal": True,
    "contra_type": "fine",
    "late_fusion": False,
    "fineweight_type": None,
    "caption_type": "unimlm",
    "cross_attn_type": "va_concate",
    "label_smoothing": 0.0,
    "contra_loss_ratio": 1.0,
    "use_task_prompt": False,
    "video_transforms": "none",
    "video_resolution": None,
    "video_sample_num": 0,
    "audio_sample_num": 0,
    "audio_melbins": 64,
    "audio_target_length": None,
    "audio_frame_shift": 10,
    "audio_mean": -4.2677393,
    "audio_std": 4.5689974,
    "max_generation_len": 30,
    "data_cfg": {},
}

OPTION_KINDS = {
    name: (int, float) if type(default) is float else (type(default),)
    for name, default in DEFAULT_OPTIONS.items()
    if default is not None
} | {
    "video_encoder_type": (str,),
    "fineweight_type": (str,),
    "video_resolution": (int,),
    "audio_target_length": (int,),
}

# Options that change the computation and are not supported, with their neutral values
UNSUPPORTED_OPTIONS = {
    "full_masker": False,
    "scst_finetuning": False,
    "has_vafusion_encoder": False,
    "task_pormpt_as_text": False,
    "evaluate_ret_text": False,
    "dual_softmax": False,
    "loss_reweight": False,
    "feature_pooling_type": "none",
    "video_token_sample_num": -1,
    "videoswin_timestride": 1,
}

ALIGNMENTS = {"fine": "fine", "coarse": "coarse"}
CAPTIONING_OBJECTIVES = {"unimlm": "masked", "lm": "causal"}
CROSS_ATTENTION_TYPES = {
    "va_concate": "concat",
    "va_parallel": "parallel",
    "audio_video": "audio_visual",
    "video_audio": "visual_audio",
}
VIDEO_TRANSFORMS = {"none": False, "crop_flip": True}
"""Whether frames are cropped to a square at their centre."""

BERT_BASE_UNCASED_SIZE = 30522


def accepts_hps(function: Callable[P, R]) -> Callable[P, R]:
    """Accepts `hps`, the former name of the argument `options`, with a FutureWarning; it goes with the next version."""

    @functools.wraps(function)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
        if "hps" in kwargs:
            warnings.warn("The argument `hps` is now called `options`.", FutureWarning, stacklevel=2)
            kwargs["options"] = kwargs.pop("hps")
        return function(*args, **kwargs)

    return renamed


def read_options(given: str | PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The options of the 2023 program, defaults included, from its `hps.json` (a path) or its content (a mapping).

    Raises:
        `ConversionError`: the file is missing, does not hold a JSON object, or an option has a value of another kind.
    """
    if not isinstance(given, Mapping):
        try:
            given = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConversionError(f"The options file {given} cannot be read as JSON: {error}.") from error
        if not isinstance(given, Mapping):
            raise ConversionError(
                f"The options must be a JSON object as the 2023 program writes it to log/hps.json, got a {type(given).__name__}."
            )
    options = {**DEFAULT_OPTIONS, **{name: value for name, value in given.items() if value is not None}}
    for name, kinds in OPTION_KINDS.items():
        if options[name] is not None and type(options[name]) not in kinds:
            raise ConversionError(
                f"The option `{name}` is {options[name]!r}, but must be of the type {kinds[-1].__name__}."
            )
    return options


def unsupported_options(options: Mapping[str, Any]) -> list[str]:
    """The options that the package does not use and that do not have their neutral value."""
    return [name for name, neutral in UNSUPPORTED_OPTIONS.items() if options.get(name, neutral) != neutral]


def choose(options: Mapping[str, Any], option: str, table: Mapping[str, Any]) -> Any:
    """Returns the entry of `table` for the value of `option`; any other value is a `ConversionError`."""
    if options[option] not in table:
        raise ConversionError(
            f"The option `{option}` is {options[option]!r}; accepted are {', '.join(map(repr, table))}."
        )
    return table[options[option]]


def sampled_at_test_time(options: Mapping[str, Any], option: str, limit: int) -> int:
    """Frames or audio clips per video: those of the test sets if the options name any, else as trained."""
    test_sets = options["data_cfg"].get("val") or []
    return min(max([test_set.get(option) or 0 for test_set in test_sets] + [0]) or options[option] or 1, limit)


def crops_frames(options: Mapping[str, Any]) -> bool:
    """Whether frames are cropped to a square; the 2023 program notes that for all data or per data set."""
    data = options["data_cfg"]
    test_sets = (data.get("val") or []) + [entry for group in data.get("train") or [] for entry in group["datasets"]]
    named = [entry["video_transforms"] for entry in test_sets if "video_transforms" in entry]
    if options["video_transforms"] == "none" and named:
        options = {**options, "video_transforms": named[0]}
    return bool(choose(options, "video_transforms", VIDEO_TRANSFORMS))
