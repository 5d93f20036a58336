# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
Fine-tune VALOR to describe videos and sounds (section 4.3); with `--self_critical`, on the CIDEr of whole captions.

    python examples/run_captioning.py examples/recipes/valor32k_captioning.yaml --model_name_or_path valor-large \\
        --media videos --annotations valor32k --output_dir valor-large-valor32k
    python examples/run_captioning.py examples/recipes/coco_captioning_scst.yaml --model_name_or_path valor-large-coco \\
        --media images --annotations coco --output_dir valor-large-coco-scst
"""

from dataclasses import dataclass, field

from modeling_valor.training.recipes import parse_arguments, run


@dataclass
class SelfCriticalArguments:
    """Training on a reward, after training on masked words."""

    self_critical: bool = field(default=False, metadata={"help": "Train on CIDEr instead of masked words."})
    num_sampled_captions: int = field(default=1, metadata={"help": "Captions sampled for each clip in a step."})


def main() -> None:
    *arguments, critical = parse_arguments(None, SelfCriticalArguments)
    samples = critical.num_sampled_captions if critical.self_critical else None
    run(*arguments, task="captioning", num_sampled_captions=samples)


if __name__ == "__main__":
    main()
