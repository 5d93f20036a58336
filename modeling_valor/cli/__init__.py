# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The console command `valor`."""
