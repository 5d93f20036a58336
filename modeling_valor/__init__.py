# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR, one model of vision, audio and language, for transformers (arXiv 2304.08345).

Importing this package registers its classes with transformers' Auto classes and its pipelines.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_valor import ValorAudioConfig, ValorConfig, ValorTextConfig, ValorVideoSwinConfig
from .feature_extraction_valor import ValorFeatureExtractor
from .media import MediaError, MediaLimits
from .modeling_valor import ValorModel, ValorOutput
from .modeling_valor_audio import ValorAudioModel
from .modeling_valor_base import ValorPreTrainedModel
from .modeling_valor_heads import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
)
from .modeling_valor_text import ValorTextModel
from .modeling_valor_video_swin import ValorVideoSwinModel
from .pipelines import AudiovisualCaptioningPipeline, AudiovisualQuestionAnsweringPipeline
from .pipelines_retrieval import AudiovisualRetrievalPipeline, ZeroShotAudiovisualClassificationPipeline
from .processing_valor import ValorProcessor
from .tokenization_valor import ValorTokenizer
from .video_processing_valor import ValorVideoProcessor


__version__ = "0.1.0"

# The configurations of the parts register themselves where they are defined
AutoConfig.register("valor", ValorConfig)
AutoModel.register(ValorConfig, ValorModel)
AutoModel.register(ValorTextConfig, ValorTextModel)
AutoModel.register(ValorVideoSwinConfig, ValorVideoSwinModel)
AutoModel.register(ValorAudioConfig, ValorAudioModel)
AutoModelForPreTraining.register(ValorConfig, ValorForPreTraining)
AutoModelForMultimodalLM.register(ValorConfig, ValorForCaptioning)
AutoModelForVisualQuestionAnswering.register(ValorConfig, ValorForQuestionAnswering)
AutoProcessor.register(ValorConfig, ValorProcessor)
AutoFeatureExtractor.register(ValorConfig, ValorFeatureExtractor)
AutoVideoProcessor.register(ValorConfig, ValorVideoProcessor)
AutoTokenizer.register(ValorConfig, tokenizer_class=ValorTokenizer)
PIPELINE_REGISTRY.register_pipeline(
    "audiovisual-captioning",
    AudiovisualCaptioningPipeline,
    pt_model=AutoModelForMultimodalLM,
    type="multimodal",
)
PIPELINE_REGISTRY.register_pipeline(
    "audiovisual-question-answering",
    AudiovisualQuestionAnsweringPipeline,
    pt_model=AutoModelForVisualQuestionAnswering,
    type="multimodal",
)
PIPELINE_REGISTRY.register_pipeline(
    "audiovisual-retrieval", AudiovisualRetrievalPipeline, pt_model=AutoModel, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline(
    "zero-shot-audiovisual-classification",
    ZeroShotAudiovisualClassificationPipeline,
    pt_model=AutoModel,
    type="multimodal",
)

__all__ = [
    "AudiovisualCaptioningPipeline",
    "AudiovisualQuestionAnsweringPipeline",
    "AudiovisualRetrievalPipeline",
    "MediaError",
    "MediaLimits",
    "ValorAudioConfig",
    "ValorAudioModel",
    "ValorConfig",
    "ValorFeatureExtractor",
    "ValorForCaptioning",
    "ValorForPreTraining",
    "ValorForQuestionAnswering",
    "ValorForRetrieval",
    "ValorModel",
    "ValorOutput",
    "ValorPreTrainedModel",
    "ValorProcessor",
    "ValorTextConfig",
    "ValorTextModel",
    "ValorVideoProcessor",
    "ValorVideoSwinConfig",
    "ValorVideoSwinModel",
    "ZeroShotAudiovisualClassificationPipeline",
]
