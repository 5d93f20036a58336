# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
r"""Put a bucket or folder of videos into an index, or into captions as Parquet, on a Ray cluster (docs/many_machines.md).

    python examples/index_bucket_ray.py index "s3://bucket/videos/**/*.mp4" --model valor-base --to s3://bucket/videos.lance \
        --address auto --models 8 --num-gpus 1
    python examples/index_bucket_ray.py caption videos/ --model hub_configs/valor-tiny --to captions/

Without `--address` it runs on this machine. The same command again goes on after a crash.
"""

import os
from typing import Annotated

import ray
import typer

from modeling_valor.integrations.ray import caption_videos, index_videos


app = typer.Typer(help=__doc__.split("\n\n")[0], add_completion=False, pretty_exceptions_enable=False)

Sources = Annotated[list[str], typer.Argument(help="Files, folders, globs or addresses, as all machines see them.")]
Model = Annotated[str, typer.Option(help="Folder or Hub name of a checkpoint, as all machines see it.")]
To = Annotated[str, typer.Option(help="The index, or the folder of captions: a folder or an address.")]
Address = Annotated[str | None, typer.Option(help="The Ray cluster, or `auto`; by default one of this machine alone.")]
Readers = Annotated[
    int | None, typer.Option(min=1, help="Most processes that decode; by default one for each CPU left.")
]
Models = Annotated[int, typer.Option(min=1, help="Processes that hold the model.")]
NumGpus = Annotated[float, typer.Option(min=0, help="GPUs of each of these.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Segments that go through the model together.")]
Seconds = Annotated[float, typer.Option(help="Length of a segment.")]
Progress = Annotated[bool, typer.Option(help="Show Ray's progress bars.")]


@app.command()
def index(
    sources: Sources,
    model: Model,
    to: To,
    address: Address = None,
    readers: Readers = None,
    models: Models = 1,
    num_gpus: NumGpus = 0.0,
    batch_size: BatchSize = 16,
    segment_seconds: Seconds = 10.0,
    progress: Progress = True,
) -> None:
    """Embed the segments of videos and write them to an index, which `valor search --index` searches."""
    _run(
        address,
        lambda: index_videos(
            sources,
            to,
            model,
            readers=readers,
            models=models,
            num_gpus=num_gpus,
            batch_size=batch_size,
            segment_seconds=segment_seconds,
            progress=progress,
        ),
    )


@app.command()
def caption(
    sources: Sources,
    model: Model,
    to: To,
    address: Address = None,
    readers: Readers = None,
    models: Models = 1,
    num_gpus: NumGpus = 0.0,
    batch_size: BatchSize = 16,
    segment_seconds: Seconds = 10.0,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of the search for words.")] = 1,
    progress: Progress = True,
) -> None:
    """Caption the segments of videos and write them to Parquet files."""
    _run(
        address,
        lambda: caption_videos(
            sources,
            to,
            model,
            readers=readers,
            models=models,
            num_gpus=num_gpus,
            batch_size=batch_size,
            segment_seconds=segment_seconds,
            generate_kwargs={"num_beams": num_beams},
            progress=progress,
        ),
    )


def _run(address, work) -> None:
    """Prints what came of the work, or why it could not be done, in one sentence."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
        print(work())
    except (ValueError, OSError, ConnectionError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ray.shutdown()


if __name__ == "__main__":
    app()
