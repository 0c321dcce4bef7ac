"""The command, and what an install without training brings along."""

import importlib
import os
import subprocess
import sys

import pytest

import atelier


def test_every_subcommand_leads_to_a_function_of_arguments():
    for target, _ in atelier.COMMANDS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_help_names_every_subcommand(capsys):
    assert atelier.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in atelier.COMMANDS)


def test_an_unknown_subcommand_is_named_with_those_there_are(capsys):
    assert atelier.main(["trian"]) == 2
    assert "trian" in capsys.readouterr().err


def test_a_missing_package_is_answered_with_the_extra_that_brings_it():
    code = "import sys; sys.modules['torch'] = None; import atelier; sys.exit(atelier.main(['train', 'vae']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'atelier[training]'" in ended.stderr


def test_serving_imports_neither_torch_nor_anything_else_of_training_and_export():
    code = (
        "import sys, importlib, pkgutil, serving\n"
        "for module in pkgutil.walk_packages(serving.__path__, 'serving.'):\n"
        "    importlib.import_module(module.name)\n"
        "found = {'torch', 'onnxscript', 'scipy', 'sklearn', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'serving imports {found}' if found else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import atelier; atelier.main(['export', '--help'])",
        "from serving.backends.sessions import onnxruntime_and_providers as load; load()",
    ],
    ids=["command", "engine"],
)
def test_onnxruntime_reports_to_nobody(tmp_path, code):
    """Its telemetry leaves a folder in the home of whoever imports it."""
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    inherited.pop("XDG_CACHE_HOME", None)
    imported = "import sys, contextlib\nwith contextlib.suppress(SystemExit):\n    "
    imported += code + "\nsys.exit('onnxruntime' not in sys.modules)"
    environment = inherited | {"HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert not list(tmp_path.rglob(".onnxruntime"))
