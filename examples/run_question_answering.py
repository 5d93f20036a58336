# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
Fine-tune VALOR to answer questions about videos and sounds in words of its whole vocabulary (section 4.3).

    python examples/run_question_answering.py examples/recipes/music_avqa.yaml --model_name_or_path valor-base \\
        --media videos --annotations music_avqa --output_dir valor-base-music-avqa
"""

from modeling_valor.training.recipes import parse_arguments, run


def main() -> None:
    run(*parse_arguments(), task="question_answering")


if __name__ == "__main__":
    main()
