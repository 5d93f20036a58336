# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Names, sizes and options of the checkpoints released in 2023, and what they are here."""
