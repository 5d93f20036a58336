# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Films described along their time: a caption for each segment, as subtitles that a player shows."""

from .captions import TimedCaption, caption_timeline
from .formats import FORMATS, TimelineWriter, format_of


__all__ = ["FORMATS", "TimedCaption", "TimelineWriter", "caption_timeline", "format_of"]
