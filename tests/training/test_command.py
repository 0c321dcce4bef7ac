import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import toy
from safetensors.torch import load_file

from training import checkpoint
from training.command import main

SMALL = ["--data", "toy", "--set", "batch_size=8", "--set", "tensorboard=false", "--set", "accelerator=cpu"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`atelier train` with `toy` known, as a process of its own."""
    command = [sys.executable, *launcher, toy.__file__, *arguments]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def weights(run: str) -> dict[str, bytes]:
    folder = checkpoint.find(Path(run))
    return {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}


def test_a_run_is_trained_and_its_configuration_can_be_given_again(capsys):
    assert main(["toy", *SMALL, "--set", "steps=12", "--run-dir", "runs/a"]) == 0
    assert "trained to step 12 of 12" in capsys.readouterr().err
    assert main(["--config", "runs/a/config.json", "--run-dir", "runs/b"]) == 0
    assert weights("runs/a") == weights("runs/b")


def test_a_dry_run_prints_a_file_that_means_the_same_and_trains_nothing(capsys, tmp_path):
    assert main(["toy", *SMALL, "--set", "steps=12", "--set", "toy.lr=0.5", "--dry-run"]) == 0
    out = capsys.readouterr().out
    values = tomllib.loads(out)
    assert (values["steps"], values["toy"]["lr"]) == (12, 0.5)
    assert "# network net: 280 parameters" in out
    assert list(tmp_path.iterdir()) == []
    Path("again.toml").write_text(out)
    assert main(["toy", "--config", "again.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out == out


def test_resuming_takes_the_newest_run_and_its_settings(capsys):
    assert main(["toy", *SMALL, "--set", "steps=6", "--set", "name=first"]) == 0
    assert main(["--resume", "--set", "steps=9"]) == 0
    said = capsys.readouterr().err
    assert "from step 6 to step 9" in said
    assert "  steps: 9, was 6" in said
    assert checkpoint.load("runs/first").step == 9
    assert main(["toy", "--resume", "first", "--set", "steps=10"]) == 0
    assert checkpoint.load("runs/first").step == 10


def test_an_older_checkpoint_is_gone_on_from_in_a_new_folder_alone(capsys):
    settings = ["--set", "steps=9", "--set", "checkpoint_every=3", "--set", "keep_checkpoints=0"]
    assert main(["toy", *SMALL, *settings, "--run-dir", "runs/a"]) == 0
    older = "runs/a/checkpoints/step-00000003"
    assert main(["toy", "--resume", older]) == 2
    assert (
        "is not the newest checkpoint of its run: name a new folder with --run-dir" in capsys.readouterr().err
    )
    assert main(["toy", "--resume", older, "--run-dir", "runs/b"]) == 0
    assert weights("runs/a") == weights("runs/b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["toyy", "--data", "toy"],
            "family 'toyy' is not one of vae, gan, cyclegan, diffusion, reflow, toy; did you",
        ),
        (["--data", "toy"], "name a family: atelier train FAMILY, one of vae"),
        (["toy"], "data is missing: name the data set with --data"),
        (["toy", "--data", "tooy"], "data set 'tooy' is not one of"),
        (["toy", *SMALL, "--set", "toy.lrr=1"], "there is no setting 'toy.lrr'; did you mean 'toy.lr'?"),
        (["toy", "--config", "none.toml"], "cannot read the configuration none.toml"),
        (["toy", "--resume"], "there is no run with a checkpoint under runs/ to resume"),
        (["toy", "--resume", "gone"], "there is no run 'gone', neither here nor under runs/"),
        (["toy", *SMALL, "--set", "precision=fp16"], "precision = 'fp16' is not possible on the CPU"),
        (
            ["toy", *SMALL, "--set", "accelerator=abacus"],
            "accelerator = 'abacus' with devices = 1 is not possible",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line(capsys, arguments, message):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("atelier train: " + message)
    assert "Traceback" not in said


def test_a_folder_that_holds_a_run_is_not_written_over(capsys):
    assert main(["toy", *SMALL, "--set", "steps=2", "--run-dir", "runs/a"]) == 0
    before = weights("runs/a")
    assert main(["toy", *SMALL, "--set", "steps=2", "--set", "seed=1", "--run-dir", "runs/a"]) == 2
    assert "runs/a already holds a run: go on with it by --resume runs/a" in capsys.readouterr().err
    assert weights("runs/a") == before


def test_resuming_with_another_family_or_changed_data_is_refused(capsys):
    assert main(["toy", *SMALL, "--set", "steps=2", "--run-dir", "runs/a"]) == 0
    assert main(["vae", "--resume", "runs/a"]) == 2
    assert "is a checkpoint of family 'toy', not of 'vae'" in capsys.readouterr().err
    assert main(["--resume", "runs/a", "--set", "data_options.digest=other", "--set", "steps=4"]) == 2
    assert "the data 'toy' are not what" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_command_with_1(capsys):
    assert main(["toy", *SMALL, "--set", "steps=9", "--set", "toy.fail_at=3", "--run-dir", "runs/a"]) == 1
    assert "atelier train: loss 'net' is nan at step 3" in capsys.readouterr().err


def wait_for_checkpoints(run: Path, count: int) -> None:
    while len(checkpoint.listed(run)) < count:
        time.sleep(0.05)


def test_a_killed_run_keeps_its_last_checkpoint_and_resumes_to_the_same_bits():
    settings = [*SMALL, "--set", "schedule=constant", "--set", "checkpoint_every=1"]
    process = start("toy", *settings, "--set", "steps=1000000", "--run-dir", "runs/killed")
    wait_for_checkpoints(Path("runs/killed"), 2)
    seen = checkpoint.listed(Path("runs/killed"))[-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = checkpoint.load("runs/killed")
    assert kept.path >= seen
    steps = f"steps={kept.step + 7}"
    assert main(["--resume", "runs/killed", "--set", steps]) == 0
    assert main(["toy", *settings, "--set", steps, "--run-dir", "runs/straight"]) == 0
    assert weights("runs/killed") == weights("runs/straight")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint_and_says_how_to_go_on(number):
    arguments = [*SMALL, "--set", "steps=1000000", "--set", "checkpoint_every=400"]
    process = start("toy", *arguments, "--run-dir", "runs/stopped")
    wait_for_checkpoints(Path("runs/stopped"), 1)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number
    assert "go on with: atelier train --resume runs/stopped" in said
    assert "Traceback" not in said
    kept = checkpoint.load("runs/stopped")
    assert f"stopped at step {kept.step:,} of 1,000,000" in said
    assert main(["--resume", "runs/stopped", "--set", f"steps={kept.step + 5}"]) == 0


def test_two_processes_under_torchrun_train_equal_replicas_on_halves_of_every_batch():
    script = Path("replica.py")
    script.write_text(
        "import dataclasses, sys, toy, torch\n"
        "from safetensors.torch import save_file\n"
        "from training.command import main\n"
        "toy.register()\n"
        "def step(s):\n"
        "    losses = toy.step(s)\n"
        "    rank = torch.distributed.get_rank()\n"
        "    assert len(s.batch.images) == 4, len(s.batch.images)\n"
        "    if s.step == s.steps - 1:\n"
        "        state = s.networks['net'].state_dict() | {'seen': s.batch.images}\n"
        "        save_file(state, f'replica-{rank}.safetensors')\n"
        "    return losses\n"
        "toy.FAMILY = dataclasses.replace(toy.FAMILY, step=step)\n"
        "status = main(sys.argv[1:])\n"
        "assert not torch.distributed.is_initialized(), 'its threads would outlive the interpreter'\n"
        "sys.exit(status)\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(toy.__file__).parent)}
    settings = [*SMALL, "--set", "steps=23", "--set", "checkpoint_every=10", "--run-dir", "runs/two"]
    done = subprocess.run([*command, "toy", *settings], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "on 2 × cpu" in done.stderr
    one, other = (load_file(f"replica-{rank}.safetensors") for rank in (0, 1))
    assert not one.pop("seen").equal(other.pop("seen"))
    assert all(one[key].equal(other[key]) for key in one)
    assert [p.name for p in checkpoint.listed(Path("runs/two"))] == ["step-00000020", "step-00000023"]


def test_a_saved_configuration_names_every_setting():
    assert main(["toy", *SMALL, "--set", "steps=2", "--run-dir", "runs/a"]) == 0
    values = json.loads(Path("runs/a/config.json").read_text())
    assert values["toy"] == {"lr": 0.01, "widths": [8], "dropout": 0.1, "clip": None, "fail_at": -1}
    assert values["batch_size"] == 8
