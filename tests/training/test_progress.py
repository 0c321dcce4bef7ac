import os
import pty
import subprocess
import sys

import pytest
import toy

from training.progress import TrainingProgress, duration


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (65, "1:05"), (3 * 3600 + 420, "3:07:00")])
def test_durations_read_as_a_clock_does(seconds, shown):
    assert duration(seconds) == shown


def test_without_a_terminal_a_line_has_steps_rate_losses_and_time_left(capsys):
    with TrainingProgress("digits", 0, 2000, quiet=False) as progress:
        progress.losses({"loss": 0.123456})
        progress.losses({"held_out/elbo": 2.5})
        progress.advance(1000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("digits: step 1,000 of 2,000, ")
    assert " steps/s, " in line
    assert line.endswith("left  loss 0.1235  held_out/elbo 2.5")


def test_other_processes_say_nothing(capsys):
    with TrainingProgress("digits", 0, 2000, quiet=True) as progress:
        progress.advance(1000)
        progress.note("a word")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(tmp_path):
    ours, theirs = pty.openpty()
    settings = ["steps=300", "batch_size=8", "tensorboard=false", "accelerator=cpu"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, toy.__file__, "toy", "--data", "toy", *arguments, "--run-dir", "run"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=theirs, cwd=tmp_path, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := read(ours):
        shown += chunk
    assert process.wait() == 0
    assert b"300/300" in shown
    assert b"\xe2\x94\x81" in shown
    assert b"critic" in shown


def read(descriptor: int) -> bytes:
    """What a terminal shows next; nothing once its other side is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
