# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""From files and annotations to training batches: samples, their readers, collation and mixtures."""
