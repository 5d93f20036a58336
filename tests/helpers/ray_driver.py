# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Runs `index_videos` or `caption_videos` on a Ray that is there, and is killed half-way.

python ray_driver.py {"run": "index", "sources": ..., "to": ..., "address": ..., "markers": FOLDER}
"""

import json
import os
import sys
from pathlib import Path

import ray

import modeling_valor.integrations.ray as integration
from helpers.ray_actors import kill_once, stand_ins
from modeling_valor.search import lance


def kill_the_writing_driver(markers: Path) -> None:
    """When it has written the tokens of its second batch, and not the segments that they belong to."""
    make, batches = lance._segment_table, []

    def segment_table(segments, schema):
        batches.append(segments)
        if len(batches) == 2:
            kill_once(markers, "driver", os.getpid())
        return make(segments, schema)

    lance._segment_table = segment_table


def killer_of_the_driver(markers: Path, driver: int):
    """What each worker does first: it kills the driver when a second file is written, and its checkpoint is still pending."""

    def prepare():
        from ray.data.checkpoint import checkpoint_writer

        class Writer(checkpoint_writer.BatchBasedCheckpointWriter):
            def commit_checkpoint(self, pending):
                names = os.listdir(os.path.dirname(pending.pending_path))
                if all(name.endswith(".pending.parquet") for name in names):
                    super().commit_checkpoint(pending)
                else:
                    kill_once(markers, "driver", driver)

        checkpoint_writer.BatchBasedCheckpointWriter = Writer

    return prepare


def main(run: str, sources: str, to: str, address: str, markers: str, **options) -> None:
    for name, value in stand_ins(Path(markers), sources, kills=False).items():
        setattr(integration, name, value)
    environment = {}
    if run == "caption":
        integration.SEGMENTS_PER_BLOCK = 3
        environment = {"worker_process_setup_hook": killer_of_the_driver(Path(markers), os.getpid())}
    else:
        kill_the_writing_driver(Path(markers))
    ray.init(address=address, log_to_driver=False, runtime_env=environment)
    work = {"index": integration.index_videos, "caption": integration.caption_videos}[run]
    work(sources, to, progress=False, **options)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
