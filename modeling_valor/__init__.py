# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
VALOR, one model of vision, audio and language, for transformers (arXiv 2304.08345).

Importing this package registers its classes with transformers' Auto classes and its pipelines; the classes themselves
are imported when they are first used.
"""

import importlib
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer, BertTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_valor import ValorAudioConfig, ValorConfig, ValorTextConfig, ValorVideoSwinConfig


__version__ = "0.1.0"

# Public name -> module that holds it
_PUBLIC_NAMES = {
    "AudiovisualCaptioningPipeline": "pipelines",
    "AudiovisualQuestionAnsweringPipeline": "pipelines",
    "MediaError": "media",
    "MediaLimits": "media",
    "ValorAudioModel": "modeling_valor_audio",
    "ValorFeatureExtractor": "feature_extraction_valor",
    "ValorForCaptioning": "modeling_valor_heads",
    "ValorForPreTraining": "modeling_valor_heads",
    "ValorForQuestionAnswering": "modeling_valor_heads",
    "ValorForRetrieval": "modeling_valor_heads",
    "ValorModel": "modeling_valor",
    "ValorOutput": "modeling_valor",
    "ValorPreTrainedModel": "modeling_valor",
    "ValorProcessor": "processing_valor",
    "ValorTextModel": "modeling_valor_text",
    "ValorVideoProcessor": "video_processing_valor",
    "ValorVideoSwinModel": "modeling_valor_video_swin",
}

__all__ = [*_PUBLIC_NAMES, "ValorAudioConfig", "ValorConfig", "ValorTextConfig", "ValorVideoSwinConfig"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC_NAMES])


class _LazyType(type):
    """
    Type of classes that stand for those above in transformers' registries, which only look at names until they use one.

    Registering the classes themselves would import the models, torchvision and the decoders with this package.
    """

    def __getattr__(cls, attribute: str) -> Any:
        return getattr(__getattr__(cls.__name__), attribute)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return __getattr__(cls.__name__)(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, __getattr__(cls.__name__))


def _lazy(name: str, **known: Any) -> type:
    """Stands for the class `name`; what is `known` of it can be asked without importing it."""
    return _LazyType(name, (), {"__module__": f"{__name__}.{_PUBLIC_NAMES[name]}", **known})


def _register() -> None:
    for config_class, model in (
        (ValorConfig, "ValorModel"),
        (ValorTextConfig, "ValorTextModel"),
        (ValorVideoSwinConfig, "ValorVideoSwinModel"),
        (ValorAudioConfig, "ValorAudioModel"),
    ):
        AutoConfig.register(config_class.model_type, config_class)
        AutoModel.register(config_class, _lazy(model, config_class=config_class))
    AutoProcessor.register(ValorConfig, _lazy("ValorProcessor"))
    AutoFeatureExtractor.register(ValorConfig, _lazy("ValorFeatureExtractor"))
    AutoTokenizer.register(ValorConfig, tokenizer_class=BertTokenizer)
    AutoVideoProcessor.register(ValorConfig, _lazy("ValorVideoProcessor"))
    for task, pipeline, model in (
        ("audiovisual-captioning", "AudiovisualCaptioningPipeline", "ValorForCaptioning"),
        ("audiovisual-question-answering", "AudiovisualQuestionAnsweringPipeline", "ValorForQuestionAnswering"),
    ):
        PIPELINE_REGISTRY.register_pipeline(task, _lazy(pipeline), pt_model=_lazy(model), type="multimodal")


_register()
