"""A shipped model over a real Triton: the pictures of the embedded engine."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.triton.server import lay_out
from serving.opening import open_service
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext
from serving.settings import Settings
from tests.triton.server import loaded, need_triton, triton_server

REPOSITORY = Path(__file__).parents[2] / "model_repository"
GRAPHS = ("shapes_unet", "digits_vae_decoder", "digits_vae_encoder")


async def pictures(settings: Settings) -> list[bytes]:
    async with open_service(settings, CollectorRegistry()) as service:
        await loaded(service)
        return [
            image.data
            for model in ("shapes_unet", "digits_vae")
            for image in (
                await service.generate_images(
                    pb.GenerateImagesRequest(model=model, seed=3, count=3, class_id=1), RequestContext()
                )
            ).images
        ]


async def test_shipped_models_draw_the_same_bytes_over_both(tmp_path: Path) -> None:
    need_triton()
    repository = lay_out(REPOSITORY, tmp_path / "repository", instances=1, graphs=GRAPHS)
    with triton_server(repository) as server:
        over_triton = await pictures(Settings(backend="triton", triton_url=server.grpc_address))
    assert over_triton == await pictures(Settings(repository=repository, device="cpu"))
