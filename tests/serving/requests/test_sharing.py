"""Requests that are the same, of other priority, or gone: what is shared, kept and computed in vain."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext, Service

OpenService = Callable[..., AbstractAsyncContextManager[Service]]

CONTEXT = RequestContext()
LABELS = {"model": "tiny_gaussian"}
ROWS = {"graph": "tiny_gaussian"}


def asked(**fields: Any) -> pb.GenerateImagesRequest:
    return pb.GenerateImagesRequest(
        **{"model": "tiny_gaussian", "steps": 60, "seed": 1, "count": 2, **fields}
    )


def payload(response: pb.GenerateImagesResponse) -> list[bytes]:
    return [image.data for image in response.images]


async def test_the_same_request_at_the_same_time_is_computed_once(open_tiny: OpenService) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        answers = await asyncio.gather(*(service.generate_images(asked(), CONTEXT) for _ in range(5)))
        assert len({tuple(payload(answer)) for answer in answers}) == 1
        assert registry.get_sample_value("atelier_rows_total", ROWS) == 2 * (2 * 60 - 1)
        assert registry.get_sample_value("atelier_requests_shared_total", LABELS) == 4
        assert registry.get_sample_value("atelier_rows_admitted") == 0


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"count": 3}, {"steps": 59}, {"sampler": "ddim"}, {"class_id": 0}, {"format": 4}]
)
async def test_what_differs_in_anything_is_not_shared(open_tiny: OpenService, other: dict[str, Any]) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        one, another = await asyncio.gather(
            service.generate_images(asked(class_id=1), CONTEXT),
            service.generate_images(asked(**{"class_id": 1, **other}), CONTEXT),
        )
        assert payload(one) != payload(another)
        assert registry.get_sample_value("atelier_requests_shared_total", LABELS) == 0


async def test_without_a_seed_everybody_gets_their_own(open_tiny: OpenService) -> None:
    async with open_tiny(cache_bytes=2**20) as service:
        request = pb.GenerateImagesRequest(model="tiny_gaussian", steps=20)
        answers = await asyncio.gather(*(service.generate_images(request, CONTEXT) for _ in range(4)))
        assert len({payload(answer)[0] for answer in answers}) == 4


async def test_one_of_them_may_go_and_the_others_get_their_answer(open_tiny: OpenService) -> None:
    async with open_tiny() as service:
        alone = payload(await service.generate_images(asked(), CONTEXT))
        tasks = [asyncio.create_task(service.generate_images(asked(), CONTEXT)) for _ in range(3)]
        await asyncio.sleep(0.005)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert [payload(await task) for task in tasks[1:]] == [alone] * 2


async def test_a_stream_shares_the_run_of_a_unary_call_and_hears_its_progress(open_tiny: OpenService) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        unary = asyncio.create_task(service.generate_images(asked(), CONTEXT))
        await asyncio.sleep(0)
        events = [event async for event in service.stream_generate_images(asked(), CONTEXT)]
        assert payload(events[-1].result) == payload(await unary)
        assert {event.WhichOneof("event") for event in events[:-1]} == {"progress"}
        assert registry.get_sample_value("atelier_requests_shared_total", LABELS) == 1


async def test_a_cached_answer_is_the_same_bytes_and_computes_nothing(open_tiny: OpenService) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry, cache_bytes=2**20) as service:
        first = await service.generate_images(asked(), CONTEXT)
        rows = registry.get_sample_value("atelier_rows_total", ROWS)
        again = await service.generate_images(asked(), CONTEXT)
        assert payload(again) == payload(first)
        assert (again.run.seed, again.run.compute_time.ToNanoseconds()) == (1, 0)
        assert registry.get_sample_value("atelier_rows_total", ROWS) == rows
        assert registry.get_sample_value("atelier_cache_hits_total", LABELS) == 1
        events = [event async for event in service.stream_generate_images(asked(), CONTEXT)]
        assert [payload(event.result) for event in events] == [payload(first)]


async def test_a_priority_that_does_not_exist_is_named(open_tiny: OpenService) -> None:
    async with open_tiny() as service:
        await service.generate_images(asked(), RequestContext(priority="batch"))
        with pytest.raises(ServingError, match="'urgent' is not one of interactive, batch") as error:
            await service.generate_images(asked(), RequestContext(priority="urgent"))
        assert (error.value.code, error.value.field) == (Code.INVALID_ARGUMENT, "x-atelier-priority")


async def test_a_client_that_dies_in_mid_stream_is_forgotten_and_its_rows_are_counted(
    open_tiny: OpenService,
) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry) as service:
        staying = asyncio.create_task(service.generate_images(asked(steps=200), CONTEXT))
        stream = service.stream_generate_images(asked(steps=200, seed=2, preview_every=1), CONTEXT)
        assert (await anext(stream)).progress.step >= 1
        await stream.aclose()
        assert registry.get_sample_value("atelier_rows_in_vain_total", ROWS) >= 2  # type: ignore[operator]
        assert len(payload(await staying)) == 2
        assert registry.get_sample_value("atelier_rows_admitted") == 0
        assert registry.get_sample_value("atelier_rows_pending") == 0


async def test_what_not_even_an_idle_machine_could_do_in_time_is_refused_at_once(
    open_tiny: OpenService,
) -> None:
    async with open_tiny(instances=1) as service:
        await service.generate_images(asked(steps=20, count=8), CONTEXT)
        began = monotonic()
        await service.generate_images(asked(steps=200, count=8), CONTEXT)
        alone = monotonic() - began
        backlog = [
            asyncio.create_task(service.generate_images(asked(steps=200, count=64, seed=s), CONTEXT))
            for s in range(20)
        ]
        await asyncio.sleep(0)
        context = replace(CONTEXT, deadline=monotonic() + 0.02 * alone)
        with pytest.raises(ServingError) as error:
            await service.generate_images(asked(steps=200, count=8, seed=99), context)
        assert error.value.code == Code.DEADLINE_EXCEEDED
        assert not any(task.done() for task in backlog)
        for task in backlog:
            task.cancel()
        await asyncio.gather(*backlog, return_exceptions=True)


async def test_ten_thousand_requests_of_every_kind_are_all_accounted_for(open_tiny: OpenService) -> None:
    """Random models, shapes, priorities, clients, cancellations and deadlines: each has one end."""
    random = np.random.default_rng(0)
    registry = CollectorRegistry()
    models = ("tiny_gan", "tiny_vae", "tiny_gaussian", "tiny_latent")
    async with open_tiny(registry, max_pending_rows=300, cache_bytes=2**16) as service:

        async def one(number: int) -> str:
            model = models[number % 4]
            request = pb.GenerateImagesRequest(
                model=model, count=int(random.integers(1, 12)), seed=int(random.integers(0, 50)), format=4
            )
            if model in ("tiny_gaussian", "tiny_latent"):
                request.steps = int(random.integers(1, 12))
            patience = float(random.choice([60.0, 60.0, 0.05, 0.001]))
            context = RequestContext(
                deadline=monotonic() + patience,
                client=f"client {number % 5}",
                priority=str(random.choice(["interactive", "batch"])),
            )
            task = asyncio.create_task(service.generate_images(request, context))
            if number % 7 == 0:
                await asyncio.sleep(0)  # cancelled before it begins it would be nobody's request
                asyncio.get_running_loop().call_later(float(random.uniform(0, 0.02)), task.cancel)
            try:
                answer = await task
            except asyncio.CancelledError:
                return "CANCELLED"
            except ServingError as error:
                return error.code
            assert len(answer.images) == request.count
            return "OK"

        async def some(first: int) -> list[str]:
            return [await one(number) for number in range(first, 10_000, 50)]

        ends = [end for ends in await asyncio.gather(*map(some, range(50))) for end in ends]
        counted = {code: ends.count(code) for code in set(ends)}
        assert set(counted) <= {"OK", "CANCELLED", Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
        assert counted["OK"] > 2000, counted
        for code, number in counted.items():
            samples = [
                sample.value
                for family in registry.collect()
                for sample in family.samples
                if sample.name == "atelier_requests_total" and sample.labels["code"] == code
            ]
            assert sum(samples) == number
        for gauge in ("atelier_rows_admitted", "atelier_bytes_admitted", "atelier_rows_pending"):
            assert registry.get_sample_value(gauge) == 0


async def test_pictures_of_one_pass_are_shared_and_whoever_goes_takes_them_from_nobody(
    open_tiny: OpenService,
) -> None:
    registry = CollectorRegistry()
    request = pb.GenerateImagesRequest(model="tiny_gan", seed=3, count=2, format=pb.IMAGE_FORMAT_RAW_U8)
    async with open_tiny(registry) as service:
        alone = payload(await service.generate_images(request, CONTEXT))
        tasks = [asyncio.create_task(service.generate_images(request, CONTEXT)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert [payload(await task) for task in tasks[1:]] == [alone] * 2
        assert tasks[0].cancelled()
        shared = registry.get_sample_value("atelier_requests_shared_total", {"model": "tiny_gan"})
        assert shared == 2
        assert registry.get_sample_value("atelier_rows_total", {"graph": "tiny_gan"}) == 4
        tasks = [asyncio.create_task(service.generate_images(request, CONTEXT)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert registry.get_sample_value("atelier_rows_admitted") == 0
        assert registry.get_sample_value("atelier_rows_pending") == 0
        assert payload(await service.generate_images(request, CONTEXT)) == alone
