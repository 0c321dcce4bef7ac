"""`atelier models`, `atelier generate` and `atelier translate`: a gateway asked from the command line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from serving.client.access import access_of, add_access
from serving.client.answers import Images
from serving.client.connection import DEFAULT_ADDRESS
from serving.client.errors import AtelierError
from serving.client.sync_client import Client
from serving.pb import image_generation_pb2 as pb
from serving.pictures import contact_sheet

ADDRESS_VARIABLE = "ATELIER_ADDRESS"


class OutputError(Exception):
    """A place that pictures cannot be written to: names it and the remedy."""


def models(arguments: list[str]) -> int:
    """Run `atelier models` and return its exit status."""
    parser = _parser("models", "List the models of a gateway.")
    return _run(parser, arguments, _models)


def generate(arguments: list[str]) -> int:
    """Run `atelier generate` and return its exit status."""
    parser = _parser("generate", "Ask a gateway for images: one as it is, several as a contact sheet.")
    parser.add_argument("model", help="name of the model, as `atelier models` lists it")
    parser.add_argument("--class", dest="label", metavar="CLASS", help="class, by its label or its id")
    parser.add_argument("--count", type=int, default=1, help="how many images (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same images (default: a new one)")
    parser.add_argument("--steps", type=int, help="steps of the sampler (default: the model's)")
    parser.add_argument(
        "--guidance", type=float, help="scale of classifier-free guidance (default: the model's)"
    )
    parser.add_argument("--sampler", default="", help="name of the sampler (default: the model's)")
    parser.add_argument("--truncation", type=float, help="truncation of a GAN, temperature of a VAE")
    parser.add_argument(
        "--model-version", type=int, default=0, metavar="N", help="version (default: the newest)"
    )
    _add_output(parser)
    return _run(parser, arguments, _generate)


def translate(arguments: list[str]) -> int:
    """Run `atelier translate` and return its exit status."""
    parser = _parser("translate", "Ask a gateway to carry pictures to another domain.")
    parser.add_argument("model", help="name of the model, as `atelier models` lists it")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="files of pictures")
    parser.add_argument(
        "--direction", default="", help="a_to_b or b_to_a; not needed where the model has one"
    )
    parser.add_argument(
        "--model-version", type=int, default=0, metavar="N", help="version (default: the newest)"
    )
    _add_output(parser)
    return _run(parser, arguments, _translate)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"atelier {name}", description=description, allow_abbrev=False)
    parser.add_argument(
        "--address",
        default=os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS),
        metavar="HOST:PORT",
        help="where the gateway's gRPC is, https:// before it for TLS "
        f"(default: {ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS})",
    )
    add_access(parser)
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait for the answer")
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="",
        metavar="FILE",
        help="file to write (default: MODEL.png); a folder, or a name that ends in /, gets a file an image",
    )


def _run(
    parser: argparse.ArgumentParser,
    arguments: list[str],
    command: Callable[[Client, argparse.Namespace], None],
) -> int:
    options = parser.parse_args(arguments)
    try:
        with access_of(options).client(options.address, timeout=options.timeout) as client:
            command(client, options)
    except (AtelierError, OutputError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _models(client: Client, _: argparse.Namespace) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "family", "size", "tasks", "classes", "sampler", "version"):
        table.add_column(column)
    for model in client.models():
        tasks = (pb.Task.Name(task).removeprefix("TASK_").lower() for task in model.tasks)
        table.add_row(
            model.name if model.ready else f"{model.name} (not ready)",
            model.family,
            f"{model.width}×{model.height}" if model.width else "any",
            ", ".join(tasks),
            _few(model.class_labels),
            f"{model.default_sampler}, {model.default_steps} steps" if model.default_sampler else "",
            _versions(model),
        )
    # Rich folds to 80 columns where nothing says how wide the place is; a pipe has room for whole lines.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _versions(model: pb.Model) -> str:
    """The version that requests get, or their shares, and those that were refused."""
    status = model.version_status
    shares = [f"{each.version} {each.share:.0%}" for each in status if each.share]
    refused = [f"{each.version} refused" for each in status if each.state == pb.VERSION_STATE_REFUSED]
    return ", ".join([*(shares if len(shares) > 1 else [str(model.default_version)]), *refused])


def _few(labels: Sequence[str], limit: int = 3) -> str:
    if len(labels) <= limit:
        return ", ".join(labels)
    return f"{len(labels)}: {', '.join(labels[:limit])}, ..."


def _generate(client: Client, options: argparse.Namespace) -> None:
    model = client.model(options.model)
    label, class_id = _class(options.label, model.class_labels)
    started = time.monotonic()
    images: Images | None = None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(model.name, total=None)
        for event in client.stream(
            model.name,
            count=options.count,
            class_label=label,
            class_id=class_id,
            seed=options.seed,
            steps=options.steps,
            guidance_scale=options.guidance,
            sampler=options.sampler,
            truncation=options.truncation,
            version=options.model_version,
        ):
            if isinstance(event, Images):
                images = event
            else:
                bar.update(task, completed=event.step, total=event.steps)
    assert images is not None, "a stream ends with its images, or with an error"
    where = _write(images, options.output, model.name)
    _report(images, where, time.monotonic() - started, seeded=True)


def _translate(client: Client, options: argparse.Namespace) -> None:
    for path in options.pictures:
        if not path.is_file():
            raise OutputError(f"no picture at {path}")
    started = time.monotonic()
    images = client.translate(
        options.model, options.pictures, direction=options.direction, version=options.model_version
    )
    _report(images, _write(images, options.output, options.model), time.monotonic() - started)


def _class(asked: str | None, labels: Sequence[str]) -> tuple[str | None, int | None]:
    """The class asked for, as a label or as an id: a label wins where it reads as a number."""
    if asked is not None and asked not in labels and asked.isdecimal():
        return None, int(asked)
    return asked, None


def _write(images: Images, output: str, model: str) -> str:
    """Write the pictures and say where."""
    if output.endswith(("/", os.sep)) or Path(output or ".png").is_dir():
        return _write_folder(images, Path(output), model)
    path = Path(output or f"{model}.png")
    _save(images[0] if len(images) == 1 else _sheet(images), path)
    return str(path)


def _sheet(images: Images) -> Image.Image:
    pixels = [np.asarray(image, np.uint8).reshape(image.height, image.width, -1) for image in images]
    return Image.fromarray(contact_sheet(pixels))


def _write_folder(images: Images, folder: Path, model: str) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    for index, image in enumerate(images):
        _save(image, folder / f"{model}-{images.run.seed}-{index:03}.png")
    return f"{folder}{os.sep}{model}-{images.run.seed}-*.png"


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(
            f"cannot write {path}: its ending names no format; use .png, .jpg or .webp"
        ) from error


def _report(images: Images, where: str, seconds: float, *, seeded: bool = False) -> None:
    run = images.run
    done = [f"{len(images)} {'picture' if len(images) == 1 else 'pictures'} of {run.model} v{run.version}"]
    if seeded:
        done.append(f"seed {run.seed}")
    if run.sampler:
        done.append(f"{run.sampler} {run.steps} steps")
    if run.guidance_scale not in (0, 1):
        done.append(f"guidance {run.guidance_scale:g}")
    print(f"{where}: {', '.join(done)}, {seconds:.2f} s")
