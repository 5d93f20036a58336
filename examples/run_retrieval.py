# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
r"""Fine-tune VALOR for retrieval, of videos, sounds or both by text (section 4.3): the same as `valor train retrieval`.

    python examples/run_retrieval.py --model_name_or_path valor-large --dataset my_videos --do_train --do_eval \
        --output_dir valor-large-my-videos --learning_rate 2e-5 --per_device_train_batch_size 64 --bf16
    accelerate launch --config_file examples/accelerate/ddp.yaml examples/run_retrieval.py \
        msrvtt_retrieval --model_name_or_path valor-large --media videos --annotations msrvtt
"""

import sys

from modeling_valor.cli.main import main


if __name__ == "__main__":
    sys.exit(main(["train", "retrieval", *sys.argv[1:]]))
