"""Calls that nobody waits for any more are cancelled in servers that survive it, and in no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from serving.backends.triton import endpoint
from serving.backends.triton.endpoint import Endpoint, Security
from serving.backends.triton.memory import Regions
from serving.backends.triton.under_way import cancelled_safely
from serving.calls import Computed
from serving.errors import Code, ServingError
from serving.manifest import TensorSpec
from tests.triton.backends import BLUR, LARGE, SMALL, translating, until
from tests.triton.other_releases import Release, serving
from tests.triton.server import TritonServer, triton_server

INPUTS = {"latent": np.ones((2, 4), np.float32)}
OUTPUTS = (TensorSpec(name="sample", dtype="float32", shape=(4,)),)

OLD, NEW = "2.51.0", "2.59.0"


@asynccontextmanager
async def to(release: Release, *, call_seconds: float = 60.0) -> AsyncIterator[Endpoint]:
    """An endpoint that knows the server; it may answer when the block is left."""
    async with serving(release):
        found = Endpoint(
            release.address, Security(), call_seconds=call_seconds, regions=Regions("off", release.address)
        )
        while not await found.look():
            pass
        try:
            yield found
        finally:
            release.may_answer.set()
            await found.close()


def call(found: Endpoint) -> asyncio.Task[Computed]:
    return asyncio.create_task(found.infer("grey", 1, INPUTS, OUTPUTS, 1))


@pytest.mark.parametrize(
    ("name", "version", "safely"),
    [
        ("triton", "2.51.0", False),
        ("triton", "2.58.0", False),
        ("triton", "2.59.0", True),
        ("triton", "2.60.0dev", True),
        ("triton", "10.0", True),
        ("triton", "", False),
        ("triton", "main", False),
        ("triton", "3", False),
        ("other", "9.9.9", False),
        ("atelier", "0.1.0", True),
    ],
)
def test_who_survives_it_is_known_by_name_and_version(name: str, version: str, safely: bool) -> None:
    assert cancelled_safely(name, version) == safely


async def test_a_cancellation_is_passed_on_to_a_release_that_survives_it() -> None:
    release = Release(NEW)
    async with to(release) as found:
        cancelled = call(found)
        await until(lambda: release.asked == 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await until(lambda: release.cancelled == 1)
        assert found.outstanding == 0
    assert release.answered == 0


@pytest.mark.parametrize("version", [OLD, "", "a fork"])
async def test_a_call_to_any_other_is_left_to_end_and_its_place_is_taken_till_then(version: str) -> None:
    release = Release(version)
    async with to(release) as found:
        cancelled = call(found)
        await until(lambda: release.asked == 1)
        cancelled.cancel()
        await asyncio.wait([cancelled], timeout=0.1)
        assert not cancelled.done()
        assert found.outstanding == 1
        release.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert found.outstanding == 0
    assert (release.answered, release.cancelled) == (1, 0)


async def test_one_that_is_cancelled_twice_is_left_without_being_waited_for() -> None:
    release = Release(OLD)
    async with to(release) as found:
        cancelled = call(found)
        await until(lambda: release.asked == 1)
        for _ in range(2):
            cancelled.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert found.outstanding == 1
        release.may_answer.set()
        await until(lambda: found.outstanding == 0)
    assert (release.answered, release.cancelled) == (1, 0)


async def test_the_version_is_asked_for_again_since_another_server_may_have_come() -> None:
    release = Release(NEW)
    async with to(release) as found:
        release.version = OLD
        await found.look()
        cancelled = call(found)
        await until(lambda: release.asked == 1)
        cancelled.cancel()
        release.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert (release.answered, release.cancelled) == (1, 0)


@pytest.mark.parametrize(("version", "ends"), [(OLD, (1, 0)), (NEW, (0, 1))])
async def test_a_call_that_takes_too_long_is_given_up(version: str, ends: tuple[int, int]) -> None:
    release = Release(version)
    async with to(release, call_seconds=0.2) as found:
        with pytest.raises(ServingError, match="does not answer") as error:
            await call(found)
        assert error.value.code == Code.UNAVAILABLE
        await until(lambda: release.cancelled == ends[1])
        await until(lambda: found.outstanding == ends[0])
        release.may_answer.set()
        await until(lambda: found.outstanding == 0)
    assert (release.answered, release.cancelled) == ends


async def test_one_that_leaves_too_many_without_an_answer_gets_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_MOST_LEFT", 3)
    release = Release(OLD)
    async with to(release, call_seconds=0.1) as found:
        for _ in range(5):
            with pytest.raises(ServingError, match="does not answer"):
                await call(found)
        assert release.asked == 3
        release.may_answer.set()
        await until(lambda: found.outstanding == 0)
        await call(found)


async def test_a_hung_server_is_given_up_without_a_word_and_its_answers_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_PROBE_SECONDS", 0.1)
    release = Release(OLD)
    async with to(release) as found:
        calls = [call(found) for _ in range(3)]
        await until(lambda: release.asked == 3)
        calls[0].cancel()
        release.hangs = True
        while found.alive:
            await found.look()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        for each in calls[1:]:
            with pytest.raises(ServingError, match="does not answer"):
                await each
        release.hangs = False
        release.may_answer.set()
        await until(lambda: release.answered == 3)
        assert await found.look()
        await call(found)
    assert release.cancelled == 0


async def test_the_channel_is_closed_after_what_was_left() -> None:
    release = Release(OLD)
    async with to(release, call_seconds=0.1) as found:
        with pytest.raises(ServingError):
            await call(found)
        closing = asyncio.create_task(found.close())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
        release.may_answer.set()
        await closing
    assert (release.answered, release.cancelled) == (1, 0)


async def test_the_real_one_computes_what_is_cancelled(translators: Path) -> None:
    with triton_server(translators) as server:
        async with translating(server) as backend:
            calls = [asyncio.create_task(backend.infer(BLUR, 1, LARGE)) for _ in range(8)]
            await asyncio.sleep(0.05)
            for each in calls:
                each.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {asyncio.CancelledError}
            await backend.infer(BLUR, 1, SMALL)
            assert await asyncio.to_thread(answered, server, BLUR) == len(calls) + 1


def answered(server: TritonServer, graph: str) -> int:
    """Requests of a graph that a server has answered."""
    with triton.InferenceServerClient(server.grpc_address) as client:
        (model,) = client.get_inference_statistics(graph).model_stats
        return int(model.inference_stats.success.count)


async def test_the_real_one_outlives_calls_that_are_cancelled_at_any_time(translators: Path) -> None:
    with triton_server(translators) as server:
        async with translating(server) as backend:
            for number in range(200):
                cancelled = asyncio.create_task(backend.infer(BLUR, 1, SMALL))
                await asyncio.sleep(number * 1e-5)
                cancelled.cancel()
                await asyncio.gather(cancelled, return_exceptions=True)
            await backend.infer(BLUR, 1, SMALL)
        assert server.running, server.said()
