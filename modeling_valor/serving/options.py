# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Options of requests: checked, within what the model can do, and refused rather than passed over."""

import copy
import json
from collections.abc import Mapping
from typing import Any, cast

from transformers import GenerationConfig

from ..configuration_valor import GROUP_OF_LETTERS, ValorConfig
from ..modeling_valor_heads import ValorForCaptioning
from .errors import RequestError


def check_model(name: Any, served: str) -> None:
    """Refuses a request for another model; none named is the one that there is.

    Raises:
        RequestError: 404.
    """
    if name is not None and name != served:
        raise RequestError(
            404, f"There is no model {name!r:.100} here: this server has {served!r}.", "model", "model_not_found"
        )


def check_media_options(options: Any, config: ValorConfig, param: str) -> dict[str, Any]:
    """How much of media is used: `num_frames`, `num_audio_clips` and `modalities`, of those that are given.

    Raises:
        RequestError: 400, another option, or more than the model takes.
    """
    if options is not None and not isinstance(options, Mapping):
        raise RequestError(400, f"`{param}` must be an object.", param)
    most = {
        "num_frames": config.max_frames * getattr(config.vision_config, "temporal_stride", 1),
        "num_audio_clips": config.max_audio_clips,
    }
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name, value in given.items():
        if name in most:
            _check_number(name, value, 1, most[name], whole=True)
        elif name != "modalities":
            raise RequestError(
                400, f"`{param}` has {name!r:.40}; {', '.join(most)} and modalities are accepted.", param
            )
        elif value not in list(GROUP_OF_LETTERS):
            raise RequestError(400, f"`modalities` is {value!r:.40}; av, v and a are accepted.", name)
    return given


def read_generation_config(body: Mapping[str, Any], model: ValorForCaptioning) -> GenerationConfig:
    """How a text is written: the checkpoint's own way, with what a chat completion changes.

    A `temperature` above 0, or a `top_p`, draws words at random, as clients of OpenAI's API expect. `generation_config`, a
    string with JSON as in `transformers serve`, may have the options of `_GENERATION`.

    Raises:
        RequestError: 400, an option that is not accepted here, or a value out of its bounds.
    """
    config = copy.deepcopy(cast(GenerationConfig, model.generation_config))
    positions = model.config.get_text_config(decoder=True).max_position_embeddings
    changes = _own_options(body.get("generation_config")) | _chat_options(body, positions)
    for name, value in changes.items():
        _check_option(name, value, positions)
        setattr(config, name, value)
    if config.do_sample and (config.num_beams or 1) > 1 and "num_beams" not in changes:
        config.num_beams = 1  # a text that is drawn
    if config.max_new_tokens is None:
        config.max_new_tokens = 30 if config.max_length is None else max(1, config.max_length - 1)
    if (config.min_new_tokens or 0) > config.max_new_tokens:
        raise RequestError(400, "`min_new_tokens` is more than the tokens that may be written.", "min_new_tokens")
    return config


def _chat_options(body: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """Options of generation that the fields of a chat completion stand for."""
    changes: dict[str, Any] = {}
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            _check_number(name, body[name], 1, positions - 1, whole=True)
            changes.setdefault("max_new_tokens", body[name])
    if (temperature := body.get("temperature")) is not None:
        _check_number("temperature", temperature, 0, 2)
        changes |= {"do_sample": temperature > 0} | ({"temperature": float(temperature)} if temperature > 0 else {})
    if body.get("top_p") is not None and temperature != 0:
        changes |= {"do_sample": True, "top_p": body["top_p"]}
    if (penalty := body.get("frequency_penalty")) is not None:
        _check_number("frequency_penalty", penalty, 0, 2)
        changes["repetition_penalty"] = 1.0 + penalty
    if body.get("seed") is not None:
        _check_number("seed", body["seed"], 0, 2**63 - 1, whole=True)
    return changes


_GENERATION: dict[str, tuple[float, Any, bool]] = {
    "max_new_tokens": (1, 0, True),  # at most the positions of the decoder
    "min_new_tokens": (0, 0, True),
    "num_beams": (1, 10, True),
    "do_sample": (0, True, False),
    "temperature": (1e-3, 2, False),
    "top_k": (1, 1000, True),
    "top_p": (1e-3, 1, False),
    "repetition_penalty": (0.1, 10, False),
    "length_penalty": (-10, 10, False),
    "no_repeat_ngram_size": (0, 10, True),
}
"""Options of generation: least and greatest value, and whether they are whole numbers; True: a switch."""


def _check_option(name: str, value: Any, positions: int) -> None:
    least, most, whole = _GENERATION[name]
    if most is True:
        if not isinstance(value, bool):
            raise RequestError(400, f"`{name}` must be true or false.", name)
        return
    _check_number(name, value, least, positions - 1 if name in ("max_new_tokens", "min_new_tokens") else most, whole)


def _own_options(text: Any) -> dict[str, Any]:
    """The options in the field `generation_config`."""
    if text is None:
        return {}
    try:
        options = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise RequestError(400, "`generation_config` must be an object in JSON.", "generation_config")
    if unknown := sorted(options.keys() - _GENERATION.keys()):
        raise RequestError(
            400,
            f"`generation_config` has {unknown[0]!r:.40}; {', '.join(_GENERATION)} are accepted.",
            "generation_config",
        )
    return {name: value for name, value in options.items() if value is not None}


def _check_number(name: str, value: Any, least: float, most: float, whole: bool = False) -> None:
    accepted = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise RequestError(400, f"`{name}` is {value!r:.40}; {kind} from {least:g} to {most:g} is accepted.", name)
