# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The procedural audio-visual world: short rendered videos with exact captions, questions and answers.

The modules, in the order in which a video is made: `scenes` samples what happens, `drawing` and `sounds` render it, `language`
writes captions and questions, `render` writes the files. `portraits` are still images of single things.
"""

from .drawing import render_frames
from .language import LESSONS, describe, questions
from .portraits import draw_portrait, sample_portrait, write_portraits
from .render import write_clip, write_world
from .scenes import SPLITS, Act, Scene, Sound, Thing, sample_scene, split_of
from .sounds import render_audio


__all__ = [
    "LESSONS",
    "SPLITS",
    "Act",
    "Scene",
    "Sound",
    "Thing",
    "describe",
    "draw_portrait",
    "questions",
    "render_audio",
    "render_frames",
    "sample_portrait",
    "sample_scene",
    "split_of",
    "write_clip",
    "write_portraits",
    "write_world",
]
