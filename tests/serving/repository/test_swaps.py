"""Versions that change while requests are under way: none fails, none mixes versions, nothing piles up."""

import asyncio
import dataclasses
import random
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import living
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.manifest.version_policy import ALL, VersionPolicy
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext, Service

OpenService = Callable[..., AbstractAsyncContextManager[Service]]
Answer = tuple[int, int, bytes]

SHADE, DIFFUSION = "shade", "slow"
SWAPS = 30
CONTEXT = RequestContext()


def asked(model: str, seed: int, **fields: object) -> pb.GenerateImagesRequest:
    return pb.GenerateImagesRequest(model=model, seed=seed, format=pb.IMAGE_FORMAT_RAW_U8, **fields)


class Load:
    """Endless clients, and what they have got so far."""

    def __init__(self, *clients: Callable[[], AsyncGenerator[object, None]]) -> None:
        self.answers: list[list[object]] = [[] for _ in clients]
        self._tasks = [
            asyncio.create_task(self._run(client, into))
            for client, into in zip(clients, self.answers, strict=True)
        ]

    async def _run(self, client: Callable[[], AsyncGenerator[object, None]], into: list[object]) -> None:
        async with aclosing(client()) as answers:
            async for answer in answers:
                into.append(answer)
                # An answer from the cache comes without anybody else having had a turn.
                await asyncio.sleep(0)

    async def go_on(self) -> None:
        """Until each client has one more answer; raises what one of them failed with."""
        before = [len(each) for each in self.answers]
        while any(len(each) == old for each, old in zip(self.answers, before, strict=True)):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Cancels them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_no_request_fails_and_none_mixes_versions_while_versions_change(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    living.publish_diffusion(repository, DIFFUSION, 1)
    newest_alone = VersionPolicy(latest=1)
    numbers = random.Random(0)
    async with open_tiny(repository=repository, cache_bytes=100_000) as service:

        async def one_pass() -> AsyncGenerator[int, None]:
            while True:
                answer = await service.generate_images(asked(SHADE, numbers.randrange(100)), CONTEXT)
                grey = round((living.grey(answer.run.version) + 1) * 127.5)
                assert abs(np.frombuffer(answer.images[0].data, np.uint8).astype(int) - grey).max() <= 1
                yield answer.run.version

        async def many_steps() -> AsyncGenerator[Answer, None]:
            while True:
                seed = numbers.randrange(3)
                answer = await service.generate_images(asked(DIFFUSION, seed, steps=40), CONTEXT)
                yield answer.run.version, seed, answer.images[0].data

        async def looking_on() -> AsyncGenerator[Answer, None]:
            while True:
                seed = numbers.randrange(3)
                request = asked(DIFFUSION, seed, steps=40, preview_every=1)
                async with aclosing(service.stream_generate_images(request, CONTEXT)) as events:
                    async for event in events:
                        if event.HasField("result"):
                            yield event.result.run.version, seed, event.result.images[0].data
                        else:
                            await asyncio.sleep(0.002)  # a slow reader, whose previews outlast the run

        async def gone_half_way() -> AsyncGenerator[None, None]:
            while True:
                task = asyncio.create_task(
                    service.generate_images(asked(DIFFUSION, 7, steps=40, count=3), CONTEXT)
                )
                await asyncio.sleep(numbers.random() / 50)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                yield None

        load = Load(one_pass, one_pass, many_steps, many_steps, looking_on, gone_half_way)
        try:
            for version in range(2, SWAPS + 2):
                living.publish(repository, SHADE, version, keep=3, version_policy=newest_alone)
                living.publish_diffusion(repository, DIFFUSION, version, version_policy=newest_alone)
                await service.reload()
                await load.go_on()
        finally:
            await load.end()
        answers = load.answers
        await service._repository._holdings.settled()
        newest = {(SHADE, SWAPS + 1), (DIFFUSION, SWAPS + 1)}
        engine = service._runner._engine
        assert set(service._repository._backend._sessions) == set(engine._manifests) == newest
        assert {key[:2] for key in engine._costs} <= newest
        assert {key[:2] for key in engine._lanes} <= newest
        assert set(answers[0]) >= set(range(2, SWAPS + 1))
    await same_as_alone(open_tiny, repository, {answer for each in answers[2:5] for answer in each if answer})


async def same_as_alone(open_tiny: OpenService, repository: Path, answers: set[Answer]) -> None:
    """The same pictures come from each version by itself: no run went from one version to another."""
    shutil.rmtree(repository / SHADE)
    living.change(repository, DIFFUSION, version_policy=ALL)
    async with open_tiny(repository=repository) as service:
        await service.reload()
        drawn: dict[tuple[int, int], bytes] = {}
        for version, seed, picture in answers:
            if (version, seed) not in drawn:
                request = asked(DIFFUSION, seed, steps=40, version=version)
                drawn[version, seed] = (await service.generate_images(request, CONTEXT)).images[0].data
            assert picture == drawn[version, seed]
        assert len({drawn[version, seed] for version, seed in drawn}) == len(drawn)


async def test_whatever_is_done_to_the_folder_a_model_that_was_served_is_served(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    """A random walk through publications, damages and repairs, with a request after each step."""
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    numbers = random.Random(1)
    newest = 1

    def publish() -> None:
        nonlocal newest
        newest += 1
        living.publish(repository, SHADE, newest, keep=4)

    def publish_broken() -> None:
        publish()
        file = repository / SHADE / str(newest) / "model.onnx"
        file.write_bytes(file.read_bytes()[: numbers.randrange(200)])

    def repair() -> None:
        for version, record in living.published(repository, SHADE).versions.items():
            model = living.model_of(living.grey(version))
            assert living.record(model).sha256 == record.sha256
            living.write_model(repository, SHADE, version, model)

    def cut_configuration() -> None:
        config = repository / SHADE / "config.pbtxt"
        whole = config.read_bytes()
        config.write_bytes(whole[: numbers.randrange(len(whole) - 30)])
        waiting.append(lambda: config.write_bytes(whole))

    def take_newest_away() -> None:
        folder = repository / SHADE / str(max(living.published(repository, SHADE).versions))
        if folder.is_dir():
            shutil.rmtree(folder)
            waiting.append(repair)

    waiting: list[Callable[[], object]] = []
    async with open_tiny(repository=repository) as service:
        for _ in range(120):
            if waiting and numbers.random() < 0.5:
                waiting.pop()()
            elif not waiting:
                numbers.choice((publish, publish, publish_broken, cut_configuration, take_newest_away))()
            await service._repository.look(patient=numbers.random() < 0.7)
            await service._repository.settle()
            answer = await service.generate_images(asked(SHADE, numbers.randrange(10**6)), CONTEXT)
            grey = round((living.grey(answer.run.version) + 1) * 127.5)
            assert abs(np.frombuffer(answer.images[0].data, np.uint8).astype(int) - grey).max() <= 1
        while waiting:
            waiting.pop()()
        repair()
        publish()
        await service.reload()
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == newest
        await service._repository._holdings.settled()
        assert len(service._repository._backend._sessions) == 2


async def test_models_come_and_go_at_command(open_tiny: OpenService, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in (SHADE, "other"):
        living.publish(repository, name, 1)
    settings = {"repository": repository, "model_control": "explicit", "load_models": SHADE}
    async with open_tiny(**settings) as service:
        assert service.ready()
        await service.generate_images(asked(SHADE, 1), CONTEXT)
        models = {model.name: model.ready for model in (await service.list_models()).models}
        assert models == {SHADE: True, "other": False}
        with pytest.raises(ServingError, match="other is not loaded") as error:
            await service.generate_images(asked("other", 1), CONTEXT)
        assert error.value.code == Code.UNAVAILABLE
        await service.load_model("other")
        await service.generate_images(asked("other", 1), CONTEXT)
        living.publish(repository, SHADE, 2)
        await service.load_model(SHADE)
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 2
        await service.unload_model(SHADE)
        await service._repository._holdings.settled()
        assert set(service._repository._backend._sessions) == {("other", 1)}
        with pytest.raises(ServingError, match="shade is not loaded"):
            await service.generate_images(asked(SHADE, 1), CONTEXT)
        with pytest.raises(ServingError, match="no model 'nobody'") as error:
            await service.load_model("nobody")
        assert error.value.code == Code.NOT_FOUND


async def test_a_load_that_is_refused_says_why_and_leaves_what_was_served(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    async with open_tiny(repository=repository, model_control="explicit", load_models="*") as service:
        living.publish(repository, SHADE, 2)
        (repository / SHADE / "2" / "model.onnx").write_bytes(b"")
        for _ in range(2):
            with pytest.raises(ServingError, match="copied in part") as error:
                await service.load_model(SHADE)
            assert error.value.code == Code.FAILED_PRECONDITION
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 1


@pytest.mark.parametrize("control", ["none", "poll"])
async def test_models_are_not_loaded_one_by_one_unless_that_was_asked_for(
    open_tiny: OpenService, tmp_path: Path, control: str
) -> None:
    living.publish(tmp_path / "repository", SHADE, 1)
    async with open_tiny(repository=tmp_path / "repository", model_control=control) as service:
        for order in (service.load_model, service.unload_model):
            with pytest.raises(ServingError, match="model_control is explicit, and it is") as error:
                await order(SHADE)
            assert error.value.code == Code.FAILED_PRECONDITION
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 1


async def test_without_control_nothing_is_followed_until_a_reload(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    async with open_tiny(repository=repository, model_control="none", poll_seconds=0.01) as service:
        living.publish(repository, SHADE, 2)
        await asyncio.sleep(0.1)
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 1
        await service.reload()
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 2


async def test_under_load_a_model_is_unloaded_when_the_last_run_has_ended_and_loads_again(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish_diffusion(repository, DIFFUSION, 1)
    async with open_tiny(repository=repository, model_control="explicit", load_models="*") as service:
        for _ in range(5):
            runs = [
                asyncio.create_task(
                    service.generate_images(asked(DIFFUSION, seed, steps=60, count=2), CONTEXT)
                )
                for seed in range(4)
            ]
            await asyncio.sleep(0.01)
            await service.unload_model(DIFFUSION)
            with pytest.raises(ServingError, match="slow is not loaded"):
                await service.generate_images(asked(DIFFUSION, 9), CONTEXT)
            assert {answer.run.version for answer in await asyncio.gather(*runs)} == {1}
            await service._repository._holdings.settled()
            assert not service._repository._backend._sessions
            await service.load_model(DIFFUSION)


async def test_a_slow_reader_gets_previews_of_a_version_that_is_gone_for_all_others(
    open_tiny: OpenService,
) -> None:
    async with open_tiny(model_control="explicit", load_models="tiny_latent") as service:
        request = asked("tiny_latent", 1, steps=6, preview_every=1)
        stream = service.stream_generate_images(request, CONTEXT)
        await anext(stream)
        while service._requests._tasks:
            await asyncio.sleep(0.01)
        await service.unload_model("tiny_latent")
        await service._repository._holdings.settled()
        events = [event async for event in stream]
        assert [len(event.progress.previews) for event in events[:-2]] == [1] * (len(events) - 2)
        assert events[-1].HasField("result")
        await service._repository._holdings.settled()
        assert not service._repository._backend._sessions


async def test_a_version_that_waits_to_go_is_kept_when_it_is_loaded_again(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    async with open_tiny(repository=repository, model_control="explicit", load_models="*") as service:
        session = service._repository._backend._sessions[SHADE, 1]
        with service._repository.keep(*service._repository.find(SHADE, 0, "generate")):
            await service.unload_model(SHADE)
            await service.load_model(SHADE)
        await service._repository._holdings.settled()
        assert service._repository._backend._sessions == {(SHADE, 1): session}


async def test_another_file_under_the_number_of_a_version_waits_until_that_has_gone(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    async with open_tiny(repository=repository, model_control="explicit", load_models="*") as service:
        with service._repository.keep(*service._repository.find(SHADE, 0, "generate")):
            await service.unload_model(SHADE)
            other = living.model_of(0.5)
            living.write_model(repository, SHADE, 1, other)
            living.change(repository, SHADE, versions={1: living.record(other)})
            loading = asyncio.create_task(service.load_model(SHADE))
            await asyncio.sleep(0.05)
            assert not loading.done()
        await loading
        answer = await service.generate_images(asked(SHADE, 1), CONTEXT)
        assert set(answer.images[0].data) == {191}


async def test_a_load_that_is_cancelled_leaves_nothing(
    open_tiny: OpenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    living.publish(repository, SHADE, 1)
    async with open_tiny(repository=repository, model_control="explicit") as service:
        backend = service._repository._backend
        load, began = backend.load, asyncio.Event()

        async def slow(graph: str, version: int) -> None:
            began.set()
            await asyncio.sleep(0.05)
            await load(graph, version)

        monkeypatch.setattr(backend, "load", slow)
        loading = asyncio.create_task(service.load_model(SHADE))
        await began.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        with pytest.raises(ServingError, match="not loaded"):
            await service.generate_images(asked(SHADE, 1), CONTEXT)
        await service.reload()
        assert not backend._sessions
        await service.load_model(SHADE)
        assert (await service.generate_images(asked(SHADE, 1), CONTEXT)).run.version == 1


async def test_with_a_canary_requests_are_shared_out_and_a_retry_gets_the_same_version(
    open_tiny: OpenService, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    for version in (1, 2):
        living.publish(repository, SHADE, version)
    living.change(repository, SHADE, canary={1: 0.9, 2: 0.1})
    registry = CollectorRegistry()
    async with open_tiny(registry, repository=repository) as service:
        await service.reload()

        async def versions(seeds: range) -> list[int]:
            return [
                (await service.generate_images(asked(SHADE, seed), CONTEXT)).run.version for seed in seeds
            ]

        first = await versions(range(300))
        assert 10 <= first.count(2) <= 60
        assert await versions(range(300)) == first
        unseeded = pb.GenerateImagesRequest(model=SHADE)
        for name in ("a", "b", "c"):
            context = dataclasses.replace(CONTEXT, request_id=name)
            drawn = {(await service.generate_images(unseeded, context)).run.version for _ in range(5)}
            assert len(drawn) == 1
        assert (await service.generate_images(asked(SHADE, 1, version=2), CONTEXT)).run.version == 2
        living.change(repository, SHADE, canary={2: 1.0, 1: 0.0})
        await service.reload()
        assert set(await versions(range(20))) == {2}
        living.change(repository, SHADE, canary={7: 1.0})
        await service.reload()
        assert set(await versions(range(20))) == {2}
