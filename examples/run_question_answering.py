# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
r"""Fine-tune VALOR to answer questions about videos and sounds in words of its whole vocabulary (section 4.3): the same as
`valor train qa`.

    python examples/run_question_answering.py music_avqa --model_name_or_path valor-base \
        --media videos --annotations music_avqa --output_dir valor-base-music-avqa
"""

import sys

from modeling_valor.cli.main import main


if __name__ == "__main__":
    sys.exit(main(["train", "qa", *sys.argv[1:]]))
