# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What is built; pyproject.toml says what the package is and needs."""

from setuptools import find_packages, setup


setup(
    py_modules=["valor_cli"],
    packages=find_packages(include=["modeling_valor", "modeling_valor.*"]),
    package_data={
        "modeling_valor": ["py.typed", "*.jinja"],
        # Modules of `evaluate` are loaded as files, not imported
        "modeling_valor.evaluation": ["evaluate_modules/*/*.py"],
        "modeling_valor.evaluation.report": ["page.*"],
        "modeling_valor.recipes": ["*.yaml"],
        "modeling_valor.demo": ["*.css", "*.jinja"],
        "modeling_valor.search": ["cards.*", "page.*"],
    },
)
