# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Publishing the folder of a checkpoint on the Hub: which files are uploaded, with which code and card."""

from .card import build_folder_card
from .code import add_code
from .files import FolderContents, LeftOut, read_folder
from .results import read_results


__all__ = ["FolderContents", "LeftOut", "add_code", "build_folder_card", "read_folder", "read_results"]
