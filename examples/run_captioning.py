# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
r"""Fine-tune VALOR to describe videos and sounds (section 4.3); with `--self_critical`, on the CIDEr of whole captions. The same
as `valor train captioning`.

    python examples/run_captioning.py valor32k_captioning --model_name_or_path valor-large \
        --media videos --annotations valor32k --output_dir valor-large-valor32k
    python examples/run_captioning.py coco_captioning_scst --model_name_or_path valor-large-coco \
        --media images --annotations coco --output_dir valor-large-coco-scst
"""

import sys

from modeling_valor.cli.main import main


if __name__ == "__main__":
    sys.exit(main(["train", "captioning", *sys.argv[1:]]))
