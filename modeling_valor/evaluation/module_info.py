# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the modules of the `evaluate` library in `evaluate_modules` share: descriptions, and types of their inputs."""

import inspect
from collections.abc import Callable
from typing import Any

import datasets
import evaluate


TEXT = datasets.Value("string")
TEXTS = datasets.Sequence(TEXT)


def metric_info(function: Callable[..., Any], inputs: str, **features: Any) -> evaluate.MetricInfo:
    """Information about a metric that `function` computes.

    Args:
        inputs: description of the inputs.
        features: type of each input.
    """
    return evaluate.MetricInfo(**_info(function, inputs, features))


def measurement_info(function: Callable[..., Any], inputs: str, **features: Any) -> evaluate.MeasurementInfo:
    """The same about a measurement, which has no references."""
    return evaluate.MeasurementInfo(**_info(function, inputs, features), module_type="measurement")


def _info(function: Callable[..., Any], inputs: str, features: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": inspect.getdoc(function),
        "citation": "",
        "inputs_description": inputs,
        "features": datasets.Features(features),
    }
