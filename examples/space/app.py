# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The app of a Space: `python app.py` serves the page for the checkpoint that VALOR_CHECKPOINT names."""

import os
from pathlib import Path

from modeling_valor.demo import DemoLimits, build_app


HERE = Path(__file__).resolve().parent
CHECKPOINT = os.environ.get("VALOR_CHECKPOINT", str(HERE / "valor-tiny"))
INDEX = HERE / "clips.lance"

app = build_app(
    CHECKPOINT,
    INDEX if INDEX.exists() else None,
    limits=DemoLimits(max_mb=50, max_seconds=120, work_seconds=60),
    examples=sorted(HERE.glob("clip-*.mp4")),
)

if __name__ == "__main__":
    app.launch()
