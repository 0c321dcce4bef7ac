"""A tritonserver of one's own: on free ports of the loopback, ended by its process id."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.processes import ServerError
from benchmarks.triton.installation import Installation, installed
from serving.client.gateway import free_ports

START_SECONDS = 120.0
_LINES_KEPT = 60
_SHARED = Path("/dev/shm")
# Of each instance, for the tensors of its batches. The megabyte that it is by default would have to grow, and
# the processes of models have died of that.
_SHARED_BYTES = 16 * 1024 * 1024

# Triton's own backend takes a thread for each core otherwise.
_ONE_THREAD = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'

Control = Literal["none", "poll", "explicit"]


class TritonServer:
    """A Triton over one repository, on ports that it keeps when it is killed and started again."""

    def __init__(
        self,
        repository: Path,
        *,
        control: Control = "none",
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        installation: Installation | None = None,
    ) -> None:
        self.repository = repository
        self._control = control
        self._flags = flags
        self._environment = environment or {}
        self._installation = installation or installed()
        self._http, self._grpc, self._metrics = free_ports(3)
        self._regions = f"atelier_triton_{secrets.token_hex(4)}_"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def grpc_address(self) -> str:
        """host:port of gRPC."""
        return f"127.0.0.1:{self._grpc}"

    @property
    def http_address(self) -> str:
        """host:port of HTTP."""
        return f"127.0.0.1:{self._http}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus reads."""
        return f"http://127.0.0.1:{self._metrics}/metrics"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it is live: models that it loads by itself are loaded or refused then.

        Raises `ServerError` where it ends or takes too long.
        """
        if self.process is not None:
            self.kill()  # the processes of its models outlive one that has died by itself
        self.process = subprocess.Popen(
            self._command(), stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        if wait:
            self.wait_live()

    def wait_live(self) -> None:
        """Until it is live. Raises `ServerError` where it does not come to that, and ends it."""
        assert self.process is not None, "started before"
        deadline = time.monotonic() + START_SECONDS
        while not self._live():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"tritonserver did not start:\n{self.said()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Ends it at once, and the processes of its models with it, and what they shared."""
        assert self.process is not None, "started before"
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for region in _SHARED.glob(f"{self._regions}*"):
            region.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stops it as it is: connections stay, and nothing is answered.

        The processes of its models go on: stopped with it they count as dead when it wakes, and since they
        are not, it may die of them.
        """
        self._pass_on(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on where it was frozen."""
        self._pass_on(signal.SIGCONT)

    def close(self) -> None:
        """Ends it, and lets everything go."""
        if self.process is not None:
            self.kill()
        self._log.close()

    def said(self) -> str:
        """The end of its log."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-_LINES_KEPT:])

    def _pass_on(self, number: int) -> None:
        assert self.process is not None, "started before"
        self.process.send_signal(number)

    def _live(self) -> bool:
        try:
            with urlopen(f"http://{self.http_address}/v2/health/live", timeout=5):
                return True
        except (URLError, OSError):
            return False

    def _command(self) -> list[str]:
        server, folder = self._installation.server, self._installation.environment
        # Triton hands its environment to the models: none of ours that might disturb them.
        variables = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
            "OMP_NUM_THREADS": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            **self._environment,
        }
        return [
            *("env", "-i", *(f"{key}={value}" for key, value in variables.items())),
            *(str(server / "bin" / "tritonserver"), f"--model-repository={self.repository}"),
            *(f"--backend-directory={server / 'backends'}", f"--cache-directory={server / 'caches'}"),
            *("--http-address=127.0.0.1", f"--http-port={self._http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={self._grpc}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={self._metrics}"),
            # Ours are complete. It would start a process for each to ask it: twice as many, and on a busy
            # machine some die as they start, and take the server with them.
            *("--disable-auto-complete-config", f"--model-control-mode={self._control}"),
            f"--backend-config=python,shm-region-prefix-name={self._regions}",
            f"--backend-config=python,shm-default-byte-size={_SHARED_BYTES}",
            *("--exit-on-error=false", *self._flags),
        ]


def lay_out(repository: Path, target: Path, *, instances: int, graphs: Collection[str] | None = None) -> Path:
    """A copy of a repository, or of some of its graphs, with so many instances of each on the CPU.

    Each instance has one thread. Under the pytriton wheel each instance is a process.
    """
    target.mkdir(parents=True)
    for config in sorted(repository.glob("*/config.pbtxt")):
        if graphs is None or config.parent.name in graphs:
            shutil.copytree(config.parent, target / config.parent.name)
            with (target / config.parent.name / "config.pbtxt").open("a", encoding="utf-8") as file:
                file.write(f"instance_group {{ count: {instances} kind: KIND_CPU }}\n{_ONE_THREAD}")
    return target


@contextmanager
def triton_server(
    repository: Path,
    *,
    control: Control = "none",
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[TritonServer]:
    """A live Triton over the repository, until the block is left."""
    server = TritonServer(repository, control=control, flags=flags, environment=environment)
    try:
        server.start()
        yield server
    finally:
        server.close()
