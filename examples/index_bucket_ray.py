# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
r"""Put a bucket or folder of videos into an index, or into captions as Parquet, on a Ray cluster (docs/many_machines.md).

    python examples/index_bucket_ray.py index "s3://bucket/videos/**/*.mp4" --model valor-base --to s3://bucket/videos.lance \
        --address auto --models 8 --num-gpus 1
    python examples/index_bucket_ray.py caption videos/ --model hub_configs/valor-tiny --to captions/

Without `--address` it runs on this machine. The same command again goes on after a crash.
"""

import os
from typing import Annotated, Literal

import ray
import typer

from modeling_valor.integrations.ray import caption_videos, index_videos


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__.split("\n\n")[0])
def main(
    work: Annotated[
        Literal["index", "caption"],
        typer.Argument(
            help="Embed segments into an index for `valor search --index`, or caption them to Parquet files."
        ),
    ],
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, globs or addresses, as all machines see them.")
    ],
    model: Annotated[str, typer.Option(help="Folder or Hub name of a checkpoint, as all machines see it.")],
    to: Annotated[str, typer.Option(help="The index, or the folder of captions: a folder or an address.")],
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster, or `auto`; by default one of this machine alone.")
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, help="Most processes that decode; by default one for each CPU left.")
    ] = None,
    models: Annotated[int, typer.Option(min=1, help="Processes that hold the model.")] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each of these.")] = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Segments that go through the model together.")] = 16,
    segment_seconds: Annotated[float, typer.Option(help="Length of a segment.")] = 10.0,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Beams of the search for words of captions; by default 1.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show Ray's progress bars.")] = True,
) -> None:
    if work == "index" and num_beams is not None:
        raise typer.BadParameter("an index has no words to search for: leave out --num-beams.")
    options = {
        "readers": readers,
        "models": models,
        "num_gpus": num_gpus,
        "batch_size": batch_size,
        "segment_seconds": segment_seconds,
        "progress": progress,
    }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
        if work == "index":
            print(index_videos(sources, to, model, **options))
        else:
            print(caption_videos(sources, to, model, generate_kwargs={"num_beams": num_beams or 1}, **options))
    except (ValueError, OSError, ConnectionError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        ray.shutdown()


if __name__ == "__main__":
    app()
