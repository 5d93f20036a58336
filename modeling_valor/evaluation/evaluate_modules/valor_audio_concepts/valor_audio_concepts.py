# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.audio_concept_density` and `caption_length`."""

import evaluate

from modeling_valor.evaluation import audio_concept_density, caption_length
from modeling_valor.evaluation.module_info import TEXT, measurement_info


class ValorAudioConcepts(evaluate.Measurement):
    """Length of captions and density of audio concepts in them."""

    def _info(self) -> evaluate.MeasurementInfo:
        return measurement_info(
            audio_concept_density, "data: captions; concepts: a list of audio concepts.", data=TEXT
        )

    def _compute(self, data: list[str], concepts: list[str]) -> dict[str, float]:
        return {"LenCap": caption_length(data), "ACD": audio_concept_density(data, concepts)}
