import pytest
import torch

from training.pyramid import Analysis, Pyramid, Synthesis


def pyramid(height: int, width: int) -> Pyramid:
    return Pyramid(height=height, width=width, channels=4, max_channels=16)


@pytest.mark.parametrize(
    ("size", "smallest", "widths"),
    [
        ((8, 8), (4, 4), (4, 8)),
        ((28, 28), (7, 7), (4, 8, 16)),
        ((48, 32), (6, 4), (4, 8, 16, 16)),
        ((256, 256), (4, 4), (4, 8, 16, 16, 16, 16, 16)),
        ((15, 20), (15, 20), (4,)),
    ],
)
def test_a_pyramid_halves_as_long_as_both_sides_allow(
    size: tuple[int, int], smallest: tuple[int, int], widths: tuple[int, ...]
):
    shape = pyramid(*size)
    assert shape.smallest == smallest
    assert shape.widths == widths


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (48, 32), (15, 20), (256, 256)])
def test_vectors_become_images_of_the_size_and_images_vectors(size: tuple[int, int]):
    synthesis = Synthesis(pyramid(*size), code_dim=5, image_channels=3, blocks=2)
    analysis = Analysis(pyramid(*size), image_channels=3, out_dim=7, blocks=2)
    with torch.no_grad():
        images = synthesis(torch.randn(2, 5))
        assert images.shape == (2, 3, *size)
        assert analysis(images).shape == (2, 7)


def test_an_image_depends_on_its_own_code_alone():
    synthesis = Synthesis(pyramid(8, 8), code_dim=5, image_channels=1, blocks=1)
    codes = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(synthesis(codes)[2:3], synthesis(codes[2:3]))
        assert not torch.allclose(synthesis(codes)[0], synthesis(codes)[1], atol=1e-3)
