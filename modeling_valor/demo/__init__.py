# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A page to try a checkpoint on: `build_app` makes a Gradio app of a model and, if there is one, an index.

    from modeling_valor.demo import build_app
    build_app("hub_configs/valor-tiny").launch()

`clips` takes files and links of strangers within limits, `describing` has the model look at them, `pictures` and `gallery`
show what it saw and found, `app` is the page, `server` what it lets through.
"""

from .app import build_app
from .clips import DemoLimits


__all__ = ["DemoLimits", "build_app"]
