# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR inside other libraries, each of which is imported only when it is used."""
