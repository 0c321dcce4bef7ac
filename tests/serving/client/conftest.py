"""A gateway on the tiny models, in a process of its own as for any client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client.gateway import Gateway, gateway


@pytest.fixture(scope="session")
def running_gateway(tiny_repository: Path) -> Iterator[Gateway]:
    """Its addresses."""
    with gateway(tiny_repository) as running:
        yield running
