# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Runs `index_videos` or `caption_videos` on a Ray of its own and kills processes half-way: each named in `kill`, once.

    python ray_driver.py {"run": "index", "sources": ..., "to": ..., "kill": ["reader", "model", "driver"], "markers": FOLDER}

A process that is killed first leaves a file of its name in the folder of markers, so that it is killed only once.
"""

import json
import os
import signal
import sys

import ray

import modeling_valor.integrations.ray as integration
from modeling_valor.search import lance


JOB = json.loads(sys.argv[1])
DRIVER = os.getpid()
TINY = os.path.abspath("hub_configs/valor-tiny")


def kill_once(name: str, pid: int | None = None) -> None:
    if name in JOB["kill"]:
        try:
            os.close(os.open(os.path.join(JOB["markers"], name), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(pid or os.getpid(), signal.SIGKILL)


class Reader(integration.ValorReader):
    """Is killed when it has given three segments."""

    def read(self, rows):
        for count, row in enumerate(super().read(rows)):
            if count == 3:
                kill_once("reader")
            yield row


class KilledModel:
    """Is killed when it has computed its second batch, and before anybody has that."""

    calls = 0

    def compute(self, inputs, times):
        columns = super().compute(inputs, times)
        self.calls += 1
        if self.calls == 2:
            kill_once("model")
        return columns


class Embedder(KilledModel, integration.ValorEmbedder):
    pass


class Captioner(KilledModel, integration.CaptionRows):
    pass


def kill_the_writing_driver() -> None:
    """When it has written the tokens of its second batch, and not the segments that they belong to."""
    make, batches = lance._segment_table, []

    def segment_table(segments, schema):
        batches.append(segments)
        if len(batches) == 2:
            kill_once("driver")
        return make(segments, schema)

    lance._segment_table = segment_table


def kill_the_driver_before_a_commit() -> None:
    """In a worker: when a second file is written, and its checkpoint still pending."""
    from ray.data.checkpoint import checkpoint_writer

    class Writer(checkpoint_writer.BatchBasedCheckpointWriter):
        def commit_checkpoint(self, pending):
            if any(
                not name.endswith(".pending.parquet") for name in os.listdir(os.path.dirname(pending.pending_path))
            ):
                kill_once("driver", DRIVER)
                if "driver" in JOB["kill"]:
                    return
            super().commit_checkpoint(pending)

    checkpoint_writer.BatchBasedCheckpointWriter = Writer


def main() -> None:
    integration.SEGMENTS_PER_BLOCK = 3
    integration.ValorReader, integration.ValorEmbedder, integration.CaptionRows = Reader, Embedder, Captioner
    kill_the_writing_driver()
    hook = {"worker_process_setup_hook": kill_the_driver_before_a_commit} if JOB["run"] == "caption" else {}
    ray.init(
        num_cpus=4,
        object_store_memory=300 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=JOB["temporary"],
        runtime_env=hook,
    )
    try:
        if JOB["run"] == "index":
            report = integration.index_videos(
                JOB["sources"],
                JOB["to"],
                TINY,
                segment_seconds=4.0,
                batch_size=3,
                segments_per_write=3,
                progress=False,
            )
            counts = {"segments": report.segments, "added": report.added, "unchanged": report.unchanged}
        else:
            report = integration.caption_videos(
                JOB["sources"], JOB["to"], TINY, segment_seconds=4.0, batch_size=3, segments_per_file=3, progress=False
            )
            counts = {"segments": report.segments}
        print(json.dumps({**counts, "failures": report.failures}))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
