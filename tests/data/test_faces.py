"""Synthetic faces: frequencies of attributes, what a face depends on, what each attribute changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.synthetic.faces import ATTRIBUTES, draw_faces, load_faces, sample_attributes
from vae_jax.data.synthetic.faces.attributes import HAIR
from vae_jax.errors import DataError, InputError

KEY = jax.random.key(7)
WOMAN = {"Black_Hair", "Long_Hair", "No_Beard", "Young"}
MAN = {"Black_Hair", "Male", "No_Beard", "Young"}


def people(names: set[str], count: int = 16) -> np.ndarray:
    return np.tile([name in names for name in ATTRIBUTES], (count, 1))


def faces(names: set[str]) -> np.ndarray:
    return draw_faces(KEY, people(names)).astype(int)


@pytest.fixture(scope="module")
def population() -> dict[str, np.ndarray]:
    return dict(zip(ATTRIBUTES, np.asarray(sample_attributes(jax.random.key(3), 40_000)).T, strict=True))


@pytest.mark.parametrize(
    ("name", "given", "value", "probability"),
    [
        ("Male", None, None, 0.42),
        ("Male", "Eyeglasses", True, 0.78),
        ("Male", "Eyeglasses", False, 0.39),
        ("Male", "Blond_Hair", True, 0.06),
        ("Male", "Blond_Hair", False, 0.48),
        ("Young", "Eyeglasses", True, 0.44),
        ("Young", "Eyeglasses", False, 0.80),
        ("Blond_Hair", None, None, 0.15),
        ("Eyeglasses", None, None, 0.08),
        ("Sunglasses", "Eyeglasses", True, 0.30),
        ("Smiling", None, None, 0.48),
        ("Smiling", "Male", True, 0.40),
        ("Wearing_Lipstick", "Male", True, 0.005),
        ("Wearing_Lipstick", "Male", False, 0.80),
        ("No_Beard", "Male", True, 0.60),
        ("Gray_Hair", "Young", True, 0.001),
    ],
)
def test_attributes_have_the_specified_probabilities(population, name, given, value, probability):
    chosen = population[name] if given is None else population[name][population[given] == value]
    standard_error = (probability * (1 - probability) / len(chosen)) ** 0.5
    assert abs(chosen.mean() - probability) < 5 * standard_error


def test_samples_have_no_contradictions(population):
    assert np.all(sum(population[name].astype(int) for name in HAIR) == 1)
    assert not np.any(population["Sunglasses"] & ~population["Eyeglasses"])
    assert not np.any(population["Bald"] & (population["Long_Hair"] | population["Wavy_Hair"]))
    assert not np.any(~population["No_Beard"] & ~population["Male"])
    assert all(0 < population[name].sum() < len(population[name]) for name in ATTRIBUTES)


def test_the_sample_does_not_depend_on_its_size():
    few, many = sample_attributes(KEY, 5), sample_attributes(KEY, 2_500)
    assert few.shape == (5, len(ATTRIBUTES))
    assert few.dtype == bool
    assert np.array_equal(few, many[:5])


def test_a_face_depends_only_on_its_key_index_and_attributes():
    attributes = sample_attributes(jax.random.key(1), 40)
    many = draw_faces(KEY, attributes)
    assert many.shape == (40, 64, 64, 3)
    assert many.dtype == np.uint8
    assert np.array_equal(many, draw_faces(KEY, attributes))
    assert np.array_equal(many[:3], draw_faces(KEY, attributes[:3]))
    others = draw_faces(KEY, attributes.at[:33].set(attributes[0]))
    assert np.array_equal(many[33:], others[33:])
    assert not np.array_equal(many[0], draw_faces(jax.random.key(8), attributes[:1])[0])
    assert draw_faces(KEY, attributes[:0]).shape == (0, 64, 64, 3)


def test_faces_use_the_range_and_differ_from_each_other():
    drawn = faces(WOMAN)
    assert drawn.min() < 40
    assert drawn.max() > 215
    distances = np.abs(drawn[:, None] - drawn[None]).mean(axis=(2, 3, 4))
    assert distances[~np.eye(len(drawn), dtype=bool)].min() > 8


@pytest.mark.parametrize("who", [WOMAN, MAN], ids=["woman", "man"])
@pytest.mark.parametrize(
    ("toggled", "rows", "columns"),  # the part of the image that may change
    [
        ({"Eyeglasses"}, (15, 44), (4, 60)),
        ({"Eyeglasses", "Sunglasses"}, (15, 44), (4, 60)),
        ({"Smiling"}, (21, 60), (10, 54)),
        ({"Wearing_Lipstick"}, (38, 60), (14, 50)),
        ({"No_Beard"}, (23, 64), (8, 56)),
        ({"Young"}, (0, 60), (6, 58)),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else "",
)
def test_an_attribute_changes_only_its_part_of_the_face(who, toggled, rows, columns):
    changed = np.any(faces(who) != faces(who ^ toggled), axis=-1)
    assert changed.sum(axis=(1, 2)).min() > 15
    changed[:, slice(*rows), slice(*columns)] = False
    assert not changed.any()


@pytest.mark.parametrize("colour", ["Blond_Hair", "Brown_Hair", "Gray_Hair"])
def test_hair_colour_changes_only_hair_and_brows(colour):
    difference = np.abs(faces(WOMAN) - faces(WOMAN ^ {"Black_Hair", colour})).max(axis=-1)
    assert (difference > 20).mean(axis=(1, 2)).min() > 0.1
    assert not difference[:, 31:50, 26:38].any()  # nose and mouth
    assert not difference[:, :30, [0, -1]].any()  # backdrop


def test_sunglasses_hide_the_eyes_and_clear_glasses_do_not():
    eyes = np.s_[:, 24:34, 14:50]
    bare, clear = faces(MAN)[eyes], faces(MAN | {"Eyeglasses"})[eyes]
    dark = faces(MAN | {"Eyeglasses", "Sunglasses"})[eyes]
    assert np.all(dark.mean(axis=(1, 2, 3)) < clear.mean(axis=(1, 2, 3)))
    assert np.abs(dark - bare).mean() > 1.3 * np.abs(clear - bare).mean()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (WOMAN | {"Sunglasses"}, "Sunglasses without Eyeglasses"),
        (WOMAN | {"Blond_Hair"}, "exactly one of Bald, Black_Hair"),
        (WOMAN - {"Black_Hair"}, "exactly one of Bald, Black_Hair"),
        (WOMAN ^ {"Black_Hair", "Bald"}, "Bald with Long_Hair or Wavy_Hair"),
    ],
)
def test_contradictions_are_an_error(names, message):
    with pytest.raises(DataError, match=message):
        draw_faces(KEY, np.concatenate([people(MAN, 2), people(names, 1)]))


@pytest.mark.parametrize("wrong", [people(MAN)[0], people(MAN)[:, 1:], people(MAN).astype(int)])
def test_other_shapes_and_dtypes_are_an_error(wrong):
    with pytest.raises(DataError, match=r"expected bool \[N, 15\]"):
        draw_faces(KEY, jnp.asarray(wrong))


def test_load_faces_is_a_function_of_the_seed():
    data = load_faces(train=6, validation=3, test=2, seed=5)
    assert (data.name, data.event_shape) == ("faces", (64, 64, 3))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "validation": 3, "test": 2}
    assert data.train.attributes.names == ATTRIBUTES
    again, fewer, other = load_faces(6, 3, 2, seed=5), load_faces(2, 3, 2, seed=5), load_faces(6, 3, 2, seed=6)
    assert again.train.digest == data.train.digest
    assert fewer.train.digest == data.train[:2].digest
    assert fewer.test.digest == data.test.digest
    assert other.train.digest != data.train.digest
    first = [data.splits[name].images[0] for name in data.splits]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


@pytest.mark.parametrize("count", [0, -1, True])
def test_counts_below_one_are_an_error(count):
    with pytest.raises(InputError, match="test is"):
        load_faces(4, 4, count)
