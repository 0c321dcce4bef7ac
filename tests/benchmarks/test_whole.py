import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.mixes import Ask
from benchmarks.peers.assets.whole import Whole, rows_of
from benchmarks.peers.atelier import message
from serving.opening import open_service
from serving.requests.context import RequestContext
from serving.settings import Settings


async def test_whole_requests_joined_in_a_batch_are_the_pictures_that_atelier_draws(tiny_repository):
    asks = [
        Ask(model="tiny_gaussian", seed=5, class_id=1, count=2, steps=6, sampler="heun", guidance_scale=2.0),
        Ask(model="tiny_gaussian", seed=6, class_id=0, count=1, steps=4, sampler="euler_ancestral"),
        Ask(model="tiny_gaussian", seed=7, class_id=2, count=3, steps=6, sampler="heun", guidance_scale=2.0),
    ]
    rows = [
        rows_of(ask.seed, ask.count, ask.class_id, ask.steps, ask.sampler, ask.guidance_scale) for ask in asks
    ]
    together = Whole(tiny_repository, "tiny_gaussian", 1).images(np.concatenate(rows))
    async with open_service(Settings(repository=tiny_repository), CollectorRegistry()) as service:
        await service.wait_loaded()
        answers = [await service.generate_images(message(ask), RequestContext()) for ask in asks]
    expected = [np.frombuffer(image.data, np.uint8) for answer in answers for image in answer.images]
    difference = np.stack(expected).astype(int) - together.reshape(len(together), -1)
    assert np.abs(difference).max() <= 1


async def test_a_model_of_one_pass_is_drawn_alike(tiny_repository):
    ask = Ask(model="tiny_gan", seed=5, class_id=1, count=4)
    drawn = Whole(tiny_repository, "tiny_gan", 1).images(rows_of(5, 4, 1, 0, "euler", 1.0))
    async with open_service(Settings(repository=tiny_repository), CollectorRegistry()) as service:
        await service.wait_loaded()
        answer = await service.generate_images(message(ask), RequestContext())
    expected = np.stack([np.frombuffer(image.data, np.uint8) for image in answer.images])
    assert np.abs(expected.astype(int) - drawn.reshape(4, -1)).max() <= 1
