"""A Triton that dies under a test is that test's failure, and nobody else's."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.triton.server import TritonServer, standing, triton_server


def processes(group: int) -> set[int]:
    """The processes of a group that have not ended."""
    found = set()
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                state = (each / "stat").read_text("utf-8").rpartition(")")[2].split()[0]
                if os.getpgid(int(each.name)) == group and state != "Z":
                    found.add(int(each.name))
    return found


def die(server: TritonServer) -> int:
    """Has it die by itself, as of a fault; the group of the processes of its models, which it leaves."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSEGV)
    server.process.wait()
    assert processes(server.process.pid)
    return server.process.pid


def test_a_death_fails_one_test_with_the_log_and_the_next_has_a_server(translators: Path) -> None:
    with triton_server(translators) as server:
        with pytest.raises(pytest.fail.Exception, match="Triton died with -11") as failed, standing(server):
            group = die(server)
        assert "GRPCInferenceService" in str(failed.value), "the end of its log is there"
        assert not processes(group)
        with standing(server):
            assert server.running
        die(server)
        began = []
        with pytest.raises(pytest.fail.Exception), standing(server):
            began.append(1)
        assert not began
