"""The pictures look as they did: compared with those of the gallery, which the documentation shows."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from matplotlib.testing.compare import compare_images
from pictures import PICTURES, draw

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_that_of_the_gallery(name, tmp_path):
    drawn = draw(name, tmp_path)
    # Fonts are rasterised a little differently from build to build; lines out of place differ by far more.
    difference = compare_images(str(GALLERY / f"{name}.png"), str(drawn), tol=3)
    assert difference is None, f"{difference}\nif that is meant: python tests/plot/pictures.py"
