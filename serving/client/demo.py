"""`atelier demo`: a gateway, pictures from every model over gRPC and HTTP, and a page to play with."""

from __future__ import annotations

import argparse
import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from serving.client import AtelierError, Client
from serving.client.access import Access, access_of, add_access
from serving.client.gateway import Gateway, GatewayError, free_ports, gateway

PICTURES = 12
"""Pictures of a model in a row of the sheet."""
CELL = 96
"""Pixels of a picture in the sheet."""
GAP = 6
"""Pixels between pictures."""
TITLE = 30
"""Pixels above a row, for its title."""
SEED = 7
COLOURS = ("#eb3434", "#fcdc3c", "#32be50", "#3264fa", "#fa8cc8")


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One row of the sheet."""

    title: str
    """What it shows, and how it was asked for."""
    images: Sequence[Image.Image]
    """Pictures, from left to right."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="atelier demo", description="Serve a repository and draw all of it."
    )
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--out", type=Path, default=Path("demo/contact_sheet.png"), help="the contact sheet")
    parser.add_argument("--once", action="store_true", help="end when the sheet is drawn")
    add_access(parser)
    options = parser.parse_args(arguments)
    access = access_of(options)
    console = Console()
    # Ctrl-C and SIGTERM end the block below, and with it the gateway.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        started = time.monotonic()
        http, grpc, metrics = _ports()
        with gateway(options.repository, http_port=http, grpc_port=grpc, metrics_port=metrics) as running:
            console.print(f"The gateway is up after {time.monotonic() - started:.1f} s.")
            strips = draw_all(running, console, access)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(strips).save(options.out)
            console.print(f"\nPictures of every model: [bold]{options.out}[/bold]")
            console.print(f"Play with them:          [bold]{running.http_address}/[/bold]")
            console.print(
                f"The API:                 {running.http_address}/docs, gRPC at {running.grpc_address}"
            )
            if not options.once:
                console.print("\nCtrl-C ends it.")
                threading.Event().wait()
    except KeyboardInterrupt:
        console.print("\nEnded.")
    except (AtelierError, GatewayError, OSError) as error:
        print(f"atelier demo: {error}", file=sys.stderr)
        return 1
    return 0


def draw_all(running: Gateway, console: Console, access: Access | None = None) -> list[Strip]:
    """A strip of every model: generators over gRPC and, the same seed once more, over HTTP; translators on
    the pictures of a generator whose domain they know."""
    strips: list[Strip] = []
    access = access or Access()
    with access.client(running.grpc_address) as client:
        models = list(client.models())
        drawn: dict[str, Sequence[Image.Image]] = {}
        with console.status("Drawing ...") as status:
            for about in models:
                status.update(f"Drawing {about.name} ...")
                if not about.directions:
                    strips += _generated(client, running, about, drawn, access)
            for about in models:
                status.update(f"Drawing {about.name} ...")
                if about.directions:
                    strips += _translated(client, about, drawn)
    for strip in strips:
        console.print(f"  [green]✓[/green] {strip.title}")
    return strips


def contact_sheet(strips: Sequence[Strip]) -> Image.Image:
    """The strips below each other, each under its title."""
    width = PICTURES * (CELL + GAP) + GAP
    height = len(strips) * (TITLE + CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for row, strip in enumerate(strips):
        top = row * (TITLE + CELL + GAP) + GAP
        draw.text((GAP, top + 6), strip.title, fill=(40, 40, 48), font=font)
        for column, image in enumerate(strip.images[:PICTURES]):
            side = image.convert("RGB").resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(side, (GAP + column * (CELL + GAP), top + TITLE))
    return sheet


def _generated(
    client: Client,
    running: Gateway,
    about: Any,
    drawn: dict[str, Sequence[Image.Image]],
    access: Access,
) -> list[Strip]:
    """Pictures of as many classes as fit, over gRPC; one of them again over HTTP, which must be the same."""
    classes = list(about.class_labels)
    step = max(len(classes) // PICTURES, 1)
    wanted = [classes[(index * step) % len(classes)] for index in range(PICTURES)] if classes else []
    started = time.monotonic()
    if wanted:
        images = [
            client.generate(about.name, class_label=label, seed=SEED + index)[0]
            for index, label in enumerate(wanted)
        ]
    else:
        images = list(client.generate(about.name, count=PICTURES, seed=SEED))
    seconds = (time.monotonic() - started) / PICTURES
    body: dict[str, Any] = {"seed": str(SEED)} | ({"classLabel": wanted[0]} if wanted else {})
    over_http = _post_picture(f"{running.http_address}/v1/models/{about.name}:generate", body, access)
    if over_http.convert("RGB").tobytes() != images[0].convert("RGB").tobytes():
        raise GatewayError(f"{about.name} draws another picture over HTTP than over gRPC for seed {SEED}")
    drawn[about.name] = images
    how = f"{about.default_sampler}, {about.default_steps} steps" if about.default_sampler else "one pass"
    return [Strip(title=f"{about.name}: {how}, {1000 * seconds:.0f} ms an image", images=images)]


def _translated(client: Client, about: Any, drawn: dict[str, Sequence[Image.Image]]) -> list[Strip]:
    """A generator's pictures, or drawn ones, carried to the other domain and back."""
    name, images = _source(about, drawn)
    start = _domain_of(about, name)
    there = about.directions[start]
    carried = client.translate(about.name, images, direction=there)
    strips = [Strip(title=f"{about.name}: {name} through {there}", images=list(carried))]
    if len(about.directions) == 2:
        back = about.directions[1 - start]
        strips.append(
            Strip(
                title=f"{about.name}: and back through {back}",
                images=list(client.translate(about.name, list(carried), direction=back)),
            )
        )
    return strips


def _source(about: Any, drawn: dict[str, Sequence[Image.Image]]) -> tuple[str, Sequence[Image.Image]]:
    """Pictures of the generator with the same first word in its name (shapes_unet for shapes_cyclegan), else
    some that are drawn here."""
    family = about.name.partition("_")[0]
    mine = ((name, images) for name, images in drawn.items() if name.partition("_")[0] == family)
    return next(mine, ("drawn shapes", _drawn_shapes()))


def _drawn_shapes(side: int = 32) -> list[Image.Image]:
    """Coloured discs, squares and triangles on a dark ground, for translators that no generator feeds."""
    pictures = []
    for index in range(PICTURES):
        picture = Image.new("RGB", (side * 4, side * 4), (24, 26, 36))
        draw = ImageDraw.Draw(picture)
        colour = COLOURS[index % len(COLOURS)]
        sides = (0, 4, 3)[index % 3]
        if sides:
            draw.regular_polygon((side * 2, side * 2, side * 1.3), sides, rotation=9 * index, fill=colour)
        else:
            draw.ellipse((side, side, side * 3, side * 3), fill=colour)
        pictures.append(picture.resize((side, side), Image.Resampling.LANCZOS))
    return pictures


def _domain_of(about: Any, generator: str) -> int:
    """Which domain a generator's pictures belong to: the second where it bears the generator's first word."""
    return int(about.metadata.get("domain_b") == generator.partition("_")[0])


def _post_picture(url: str, body: dict[str, Any], access: Access) -> Image.Image:
    headers = {"Content-Type": "application/json", "Accept": "image/png", **access.headers}
    request = Request(url, data=json.dumps(body).encode(), headers=headers)  # noqa: S310 - our own gateway
    with urlopen(request, timeout=120, context=access.context(url)) as response:  # noqa: S310
        return Image.open(io.BytesIO(response.read()))


def _ports() -> list[int]:
    """The ports of the documentation where they are free, else any: HTTP, gRPC, metrics."""
    return [port if _is_free(port) else free_ports(1)[0] for port in (8080, 8081, 8082)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
