# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Where training and evaluation data come from."""
