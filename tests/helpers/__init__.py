# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What several tests use: media, tiny models, recorded outputs of the 2023 code. Nothing here is imported from a test."""
