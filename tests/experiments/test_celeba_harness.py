"""What the scripts on CelebA share: the effects of steps along the vector of an attribute."""

import numpy as np
import pytest
from conftest import small_split
from harness.faces import CLASSIFIED, effect, require_attributes, sentences

import vae_jax as vj
from vae_jax.data import Attributes
from vae_jax.evaluation.attributes import Edits


def test_effects_are_interpolated_where_a_share_of_the_faces_is_flipped():
    """Two of four faces get blond between the steps 0 and 1, one more until 2; P(Male) decreases with the step."""
    probabilities = np.full((3, 4, 4), 0.5)
    probabilities[:, :, 0] = [[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.9, 0.9, 0.9, 0.1]]
    probabilities[:, :, 2] = np.array([0.8, 0.6, 0.2])[:, None]
    distances = np.array([0.0, 1.0, 3.0])[:, None] * np.ones((1, 4))
    found = effect("Blond_Hair", Edits(np.arange(3.0), probabilities, distances), (0.25, 0.625, 0.9))
    assert found["flip_by_step"] == [0, 0.5, 0.75]
    assert found["confounder_by_step"] == {"Male": pytest.approx([0.8, 0.6, 0.2])}
    quarter, more, most = found["at_flipped_share"].values()
    assert quarter == {"step": 0.5, "drift": {"Male": pytest.approx(-0.1)}, "distance": 0.5}
    assert more == {"step": 1.5, "drift": {"Male": pytest.approx(-0.4)}, "distance": 2}
    assert most == {"step": None, "drift": {"Male": None}, "distance": None}
    first, _, last = sentences(found)
    assert first.startswith("25% flipped at 0.50: P(Male) by -0.10; distance from the unedited faces 0.50,")
    assert last == "90% flipped: not within 2 steps"


def test_two_test_faces_have_to_lack_an_attribute_that_is_edited():
    """The distance between two of them is the unit of distance."""
    values = np.eye(4, dtype=bool)  # each attribute in one of four faces
    faces = vj.Split(small_split(4).images, attributes=Attributes(CLASSIFIED, values))
    require_attributes(vj.Dataset("faces", faces, faces, "here"))
    fewer = vj.Split(faces.images, attributes=Attributes(CLASSIFIED, ~values))
    with pytest.raises(vj.InputError, match="1 of the test images lacks Blond_Hair; expected 2 or more"):
        require_attributes(vj.Dataset("faces", faces, fewer, "here"))
