"""A Triton that dies under a test is that test's failure, and nobody else's."""

import os
import signal
from pathlib import Path

import pytest

from tests.triton.server import TritonServer, standing, triton_server


def processes(group: int) -> set[int]:
    """The processes of a group."""
    found = set()
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                if os.getpgid(int(each.name)) == group:
                    found.add(int(each.name))
            except ProcessLookupError:
                pass
    return found


def die(server: TritonServer) -> set[int]:
    """Has it die by itself, as of a fault; the processes of its models, which it leaves."""
    assert server.process is not None
    group = server.process.pid
    left = processes(group) - {group}
    os.kill(group, signal.SIGSEGV)
    server.process.wait()
    return left


def test_a_death_fails_one_test_with_the_log_and_the_next_has_a_server(translators: Path) -> None:
    with triton_server(translators) as server:
        with pytest.raises(pytest.fail.Exception, match="Triton died with -11") as failed, standing(server):
            left = die(server)
        assert "GRPCInferenceService" in str(failed.value), "the end of its log is there"
        assert left, "its models have processes of their own"
        assert not left & {int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()}
        with standing(server):
            assert server.running
        die(server)
        began = []
        with pytest.raises(pytest.fail.Exception), standing(server):
            began.append(1)
        assert not began
