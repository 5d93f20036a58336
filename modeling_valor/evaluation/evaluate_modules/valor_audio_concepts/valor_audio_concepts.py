# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.audio_concept_density` and `caption_length`."""

import datasets
import evaluate

from modeling_valor.evaluation import audio_concept_density, caption_length


class ValorAudioConcepts(evaluate.Measurement):
    """Length of captions and density of audio concepts in them."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=audio_concept_density.__doc__,
            citation="",
            inputs_description="data: captions; concepts: what to look for.",
            module_type="measurement",
            features=datasets.Features({"data": datasets.Value("string")}),
        )

    def _compute(self, data: list[str], concepts: list[str]) -> dict[str, float]:
        return {"LenCap": caption_length(data), "ACD": audio_concept_density(data, concepts)}
