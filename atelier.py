"""The `atelier` command: a table from subcommand to the function that runs it, imported on use."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("training.command:main", "train a model of one family on your data"),
    "export": ("export.command:main", "turn a run into ONNX graphs in a model repository"),
    "versions": ("export.versions_command:main", "show and decide which versions of a model are served"),
    "evaluate": ("export.evaluate:main", "measure a published model through the gateway"),
    "serve": ("serving.command:main", "serve a model repository over gRPC and HTTP"),
    "keys": ("serving.access.keys_command:main", "make API keys for a gateway"),
    "doctor": ("serving.doctor.command:main", "look at what a gateway needs, and say what is wrong"),
    "models": ("serving.client.command:models", "list the models of a gateway"),
    "generate": ("serving.client.command:generate", "ask a gateway for images"),
    "translate": ("serving.client.command:translate", "ask a gateway to translate an image"),
    "fetch": ("serving.repository.fetch:main", "fill a folder with a model repository out of an archive"),
    "demo": ("serving.client.demo:main", "serve a repository and draw a picture of everything in it"),
    "bench": ("benchmarks.command:main", "measure the gateway, the raw runtime and other servers"),
    "pipeline": ("export.pipeline:main", "train, export, serve and draw small models of all families"),
}

# Which extra holds what a subcommand needs, for the message that says what to install.
EXTRAS = {"training": "training", "export": "export", "serving": "serving", "benchmarks": "dev"}


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"atelier: no subcommand {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    # The wheels of onnxruntime report to their maker unless this is set before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    module, _, function = COMMANDS[name][0].partition(":")
    try:
        command = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name == "benchmarks":
            print(
                "atelier bench: the benchmark is not part of the installed package; in a checkout of the "
                "source: make install, then .venv/bin/atelier bench",
                file=sys.stderr,
            )
            return 2
        if error.name is None or error.name.partition(".")[0] in EXTRAS:
            raise
        extra = EXTRAS[module.partition(".")[0]]
        print(
            f"atelier {name}: {error.name} is not installed; install it with: pip install 'atelier[{extra}]'",
            file=sys.stderr,
        )
        return 2
    return int(command(rest) or 0)


def usage() -> str:
    """The subcommands, a line each."""
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "usage: atelier SUBCOMMAND ...\n\n" + "\n".join(lines) + "\n\natelier SUBCOMMAND --help says more."


if __name__ == "__main__":
    sys.exit(main())
