# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Options that the evaluated tasks share: one object for media and one for texts."""

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from ..data.loading import LoadingOptions, Modalities


TEXT_LENGTH = 40
"""Maximum number of tokens of a caption or question, as in the processor."""


@dataclass(frozen=True)
class MediaOptions:
    """What is read of each sample, and how.

    Args:
        modalities: "av" (video and audio), "v" or "a".
        num_frames, num_audio_clips: of each sample; None: the processor's numbers.
        num_workers: number of processes that decode; 0: threads of this process do.
        cache: folder that stores decoded samples in half precision, for repeated evaluations during training
            (`data.loading.cache_folder`); None: samples are decoded every time.
    """

    modalities: Modalities = "av"
    num_frames: int | None = None
    num_audio_clips: int | None = None
    num_workers: int = 0
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.modalities not in ("av", "v", "a"):
            raise ValueError(f'`modalities` must be "av", "v" or "a", got {self.modalities!r}.')

    @property
    def loading(self) -> LoadingOptions:
        """The same options for `data.loading`, without randomness."""
        return LoadingOptions(
            modalities=self.modalities,
            num_frames=self.num_frames,
            num_audio_clips=self.num_audio_clips,
            sampling="center",
        )


@dataclass(frozen=True)
class TextOptions:
    """How captions and questions are prepared for the model.

    Args:
        max_length: maximum number of tokens; longer texts are truncated.
        clean: clean captions and questions as training and the 2023 code do.
        paragraph: join the captions of a sample into one text in retrieval (section 5.1.2: DiDeMo, ActivityNet).
    """

    max_length: int = TEXT_LENGTH
    clean: bool = True
    paragraph: bool = False


_KEYWORDS = {
    "media": {"media_cache" if field.name == "cache" else field.name: field.name for field in fields(MediaOptions)},
    "text": {
        "max_length": "max_length",
        "max_question_length": "max_length",
        "clean_text": "clean",
        "paragraph": "paragraph",
    },
}
"""For each options object: the keyword of each field in recipes -> the name of the field."""

_CLASSES = {"media": MediaOptions, "text": TextOptions}

Function = TypeVar("Function", bound=Callable[..., Any])


def group_keywords(keywords: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Arguments for an `evaluate_...` function from a flat mapping, such as `{"num_frames": 8, "num_beams": 3}`.

    Fields of [`MediaOptions`] (its `cache` as `media_cache`) and [`TextOptions`] become one object each. Other keywords that
    are no parameters of `function` become its `generate_kwargs`, if it has that parameter.

    Raises:
        TypeError: the function has no such parameter, or both an object and one of its fields are given.
    """
    parameters = inspect.signature(function).parameters
    grouped: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    for name, value in keywords.items():
        group = next((group for group, names in _KEYWORDS.items() if group in parameters and name in names), None)
        if name in parameters:
            grouped[name] = value
        elif group is not None:
            options.setdefault(group, {})[_KEYWORDS[group][name]] = value
        elif "generate_kwargs" in parameters:
            options.setdefault("generate_kwargs", {})[name] = value
        else:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
    if both := sorted(set(grouped) & set(options)):
        raise TypeError(
            f"{function.__name__}() got both `{both[0]}` and {', '.join(options[both[0]])}, which belongs in it."
        )
    return grouped | {group: _CLASSES.get(group, dict)(**values) for group, values in options.items()}


def accepts_flat_keywords(function: Function) -> Function:
    """Lets a function accept each option as a separate keyword for one more version, with a `FutureWarning`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        flat = [name for name in keywords if name not in inspect.signature(function).parameters]
        if flat:
            keywords = group_keywords(keywords, function)
            warnings.warn(
                f"`{function.__name__}` takes {', '.join(flat)} within `media=MediaOptions(...)`, `text=TextOptions(...)` or "
                "`generate_kwargs={...}`; the next version will not accept them as separate keywords.",
                FutureWarning,
                stacklevel=2,
            )
        return function(*args, **keywords)

    return cast(Function, wrapper)
