# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
from pathlib import Path

from setuptools import find_packages, setup


README = Path(__file__).parent / "README.md"

TESTS = ["parameterized", "peft", "pytest", "pytest-xdist", "ruff", "scipy"]

setup(
    name="modeling-valor",
    version="0.1.0",
    description="VALOR, one model of vision, audio and language, for transformers",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The modeling-valor authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    py_modules=["valor_cli"],
    packages=find_packages(include=["modeling_valor", "modeling_valor.*"]),
    package_data={
        # Modules of `evaluate` are loaded as files, not imported
        "modeling_valor.evaluation": ["evaluate_modules/*/*.py"],
        "modeling_valor.evaluation.report": ["page.*"],
        "modeling_valor.recipes": ["*.yaml"],
    },
    install_requires=[
        # torchaudio 2.11 is its last release, and cannot be imported beside torch 2.15
        "torch>=2.11,<2.15",
        "torchaudio>=2.11,<2.12",
        "torchvision>=0.26",
        "transformers>=5.23,<5.24",
        "accelerate>=1.1",
        "av>=17,<19",
        "datasets>=4.0",
        # for `backend="decord"`; the last release has wheels for these platforms only, and PyAV decodes elsewhere
        "decord>=0.6; platform_machine in 'x86_64 AMD64' and sys_platform != 'darwin'",
        "evaluate>=0.4.6",
        "filelock",
        "huggingface_hub>=1.0",
        "jinja2>=3.1",
        "numpy",
        "pillow",
        "pyyaml",
        "safetensors>=0.6",
    ],
    extras_require={
        "test": TESTS,
        "dev": [*TESTS, "build"],
        "torchcodec": ["torchcodec"],
        # METEOR and SPICE, which also need Java
        "captions": ["pycocoevalcap"],
        # plots and supervised baselines of examples/experiments
        "experiments": ["matplotlib", "scikit-learn"],
    },
    entry_points={"console_scripts": ["valor = valor_cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
