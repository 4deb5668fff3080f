"""Data sets of arrays, data frames and lists, and how data sets are printed."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax as vj
from vae_jax.data.transforms import as_split, default_transform, require_transform
from vae_jax.errors import size_of, some

GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (6, 5, 4), dtype=np.uint8)
BYTES[0, 0, :2] = 0, 255
NAMES = ("Male", "Eyeglasses", "Smiling", "Bald", "Young", "Pale_Skin", "Wavy_Hair")


class Frame:
    """The part of a data frame on which the library relies."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def from_arrays(train, test=None, **settings):
    return vj.Dataset.from_arrays("own", train, test_images=train[:2] if test is None else test, **settings)


def test_whole_numbers_are_bytes_of_images_with_an_axis_of_channels():
    dataset = from_arrays(
        np.full((3, 4, 4), 200, np.int64), train_labels=np.array([0, 1, 2]), test_labels=np.array([2, 0], np.uint8)
    )
    assert dataset.train.images.shape == (3, 4, 4, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    assert dataset.test.labels.tolist() == [2, 0]


@pytest.mark.parametrize("as_given", [np.asarray, jnp.asarray, Frame, lambda values: np.asarray(values, np.float32)])
def test_batches_of_a_loader_are_collected_in_their_order(as_given):
    numbers = np.arange(6)
    batches = ([as_given(BYTES[part]), numbers[part]] for part in (slice(0, 4), slice(4, 6)))
    split = vj.Split.from_batches(batches)
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(split.images[..., 0], BYTES)
    np.testing.assert_array_equal(split.labels, numbers)


def test_batches_without_labels_are_examples_alone():
    rows = GENERATOR.normal(size=(5, 3))
    split = vj.Split.from_batches([rows[:2], (rows[2:],)])
    assert split.labels is None
    np.testing.assert_array_equal(split.images, rows.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1)])
def test_real_numbers_that_are_bytes_of_images_are_stored_as_bytes(dtype, shape):
    images = BYTES.reshape(shape).astype(dtype)
    dataset = from_arrays(images, np.zeros_like(images[:2]))  # dark test images are bytes too
    assert dataset.train.images.dtype == dataset.test.images.dtype == np.uint8
    assert dataset.train.digest == from_arrays(np.asarray(images, np.uint8)).train.digest
    assert default_transform(dataset.train) == vj.Scale()


@pytest.mark.parametrize(
    "examples",
    [
        BYTES.reshape(6, 20).astype(np.float64),  # a table
        np.minimum(BYTES, 1).astype(np.float64),  # binary images
        BYTES.astype(np.float64) / 255,
        BYTES + 0.5,
        BYTES.astype(np.float64) + 1,  # up to 256
        BYTES.astype(np.float64) - 1,
        np.broadcast_to(BYTES[..., None], (6, 5, 4, 2)).astype(np.float64),  # two channels
    ],
    ids=["table", "binary", "unit interval", "fractions", "above", "below", "channels"],
)
def test_other_real_numbers_stay_real(examples):
    dataset = from_arrays(examples)
    assert dataset.train.images.dtype == np.float32
    np.testing.assert_array_equal(dataset.train.images, examples.astype(np.float32))


def test_one_split_of_real_numbers_keeps_both_real():
    assert from_arrays(BYTES.astype(float), BYTES[:2] / 255).train.images.dtype == np.float32


def test_a_mask_keeps_numbers_real():
    known = np.ones(BYTES.shape, bool)
    known[0, 0] = False
    data = from_arrays(BYTES.astype(float), BYTES[:2], train_observed=known, test_observed=known[:2])
    assert data.train.images.dtype == np.float32
    assert np.isnan(data.train.images[0, 0]).all()
    assert data.train.has_missing
    assert from_arrays(BYTES.astype(float), train_observed=known).test.images.dtype == np.float32


def test_whole_numbers_in_a_table_are_counts():
    assert from_arrays(BYTES.reshape(6, 20)).train.images.dtype == np.int32


def test_data_frames_and_lists_are_converted():
    table = GENERATOR.normal(size=(6, 3))
    expected = from_arrays(table, train_labels=np.arange(6), test_labels=np.arange(2))
    for convert in (Frame, np.ndarray.tolist, jnp.asarray, list):
        found = vj.Dataset.from_arrays(
            "own",
            convert(table),
            convert(np.arange(6)),
            test_images=convert(table[:2]),
            test_labels=convert(np.arange(2)),
        )
        assert {k: v.digest for k, v in found.splits.items()} == {k: v.digest for k, v in expected.splits.items()}
    assert from_arrays(list(map(Frame, table)), table[:2]).train.digest == from_arrays(table).train.digest
    assert as_split(Frame(table)).digest == vj.Split(table.astype(np.float32)).digest
    assert as_split(jnp.asarray(BYTES)).digest == vj.Split(BYTES[..., None]).digest


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_few_rows_and_many_channels_are_accepted_if_the_caller_insists(channels):
    images = GENERATOR.integers(0, 256, (4, channels, 6, 5), dtype=np.uint8)
    assert from_arrays(images, channels_last=True).event_shape == (channels, 6, 5)
    assert from_arrays(np.moveaxis(images, 1, -1)).event_shape == (6, 5, channels)
    assert as_split(vj.Split(images)).event_shape == (channels, 6, 5)


@cache
def of_colours(shape):
    """The first state and the step of a model, of which each type of the numbers takes the same program."""
    vae, optimizer = vj.mlp_vae((*shape, 3), latent_dim=2, hidden=(4,)), optax.sgd(1e-3)
    return vj.init(jax.random.key(0), vae, optimizer), vj.make_train_step(vae, vj.ELBO(), optimizer)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 8), (3, 5), (1, 4), (3, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_colour_images_of_any_size(shape, dtype):
    images = GENERATOR.integers(0, 256, (6, *shape, 3)).astype(dtype)
    dataset = from_arrays(images)
    assert dataset.event_shape == (*shape, 3)
    _, history = vj.fit(*of_colours(shape), dataset.train, epochs=1, batch_size=3, progress=False)
    assert np.isfinite(history[0]["loss"])


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        (BYTES[..., None], vj.Scale()),
        (np.minimum(BYTES, 1).astype(np.float32), vj.Raw(0.0, 1.0)),
        (np.array([[0.2, 1.1]], np.float32), vj.Raw()),
        (np.array([[0.2, -0.1]], np.float32), vj.Raw()),
        (np.array([[3, 4]], np.int32), vj.Raw(low=0.0, whole=True)),
        (np.array([[-3, 4]], np.int32), vj.Raw(low=-3.0, whole=True)),
    ],
)
def test_the_default_transform_depends_on_the_numbers(examples, expected):
    assert default_transform(vj.Split(examples)) == expected


def test_missing_entries_do_not_change_the_bounds_of_the_default_transform():
    missing = vj.Split(np.array([[0.2, np.nan]], np.float32), has_missing=True)
    assert default_transform(missing) == vj.Raw(0.0, 1.0, missing=True)


def test_real_numbers_from_0_to_1_are_trained_with_a_bernoulli_likelihood():
    images = (BYTES / 255).reshape(6, 20)
    vae, optimizer = vj.mlp_vae((20,), latent_dim=2, hidden=(4,)), optax.sgd(1e-3)
    state = vj.init(jax.random.key(0), vae, optimizer)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    _, history = vj.fit(state, step, from_arrays(images).train, epochs=1, batch_size=3, progress=False)
    assert np.isfinite(history[0]["loss"])


def test_splits_are_indexed_by_slices_and_arrays():
    split = vj.Split(BYTES[..., None], np.arange(6, dtype=np.int32))
    assert split[2:4].labels.tolist() == [2, 3]
    assert split[np.array([5, 0])].labels.tolist() == [5, 0]
    assert split[split.labels > 3].labels.tolist() == [4, 5]


class Colour:
    """A transform whose condition is the grey image: the example of `Split`."""

    support = vj.Support(0.0, 1.0, 256)
    label = "coloured"

    def __call__(self, keys, images, labels=None):
        x = images.astype(jnp.float32) / 255
        return vj.Batch(x, condition=x.mean(axis=-1, keepdims=True))


def test_a_transform_makes_the_condition():
    images = jnp.asarray(GENERATOR.integers(0, 256, (4, 3, 3, 3), dtype=np.uint8))
    keys = jax.random.split(jax.random.key(0), 4)
    batch = jax.jit(Colour())(keys, images)
    np.testing.assert_allclose(batch.condition[..., 0], np.asarray(images).mean(-1) / 255, rtol=1e-6)
    with jax.enable_x64(True):
        assert Colour()(keys, images).x.dtype == jnp.float32


def attributes(count=6):
    return vj.Attributes(NAMES, np.zeros((count, len(NAMES)), bool))


PRINTED = {
    "split": (
        lambda: vj.Split(BYTES[..., None], np.array([2, 1, 4, 1, 1, 3], np.int32)),
        "Split(images=uint8[6, 5, 4, 1], labels=int32[6] from 1 to 4, 120 B)",
    ),
    "attributes": (attributes, "Attributes(bool[6, 7]: Male, Eyeglasses, Smiling, Bald, Young and 2 more)"),
    "split with attributes": (
        lambda: vj.Split(BYTES[:2, ..., None], attributes=vj.Attributes(NAMES[:1], np.zeros((2, 1), bool))),
        "Split(images=uint8[2, 5, 4, 1], attributes=Attributes(bool[2, 1]: Male), 40 B)",
    ),
    "missing": (
        lambda: vj.Split(np.full((3, 1000), np.nan, np.float32), has_missing=True),
        "Split(images=float32[3, 1000], has_missing=True, 11.7 KiB)",
    ),
    "data set": (
        lambda: from_arrays(BYTES),
        "Dataset('own', source='arrays given by the caller',\n"
        "  train=Split(images=uint8[6, 5, 4, 1], 120 B),\n"
        "  test=Split(images=uint8[2, 5, 4, 1], 40 B))",
    ),
    "classes": (
        lambda: vj.Dataset(
            "c",
            vj.Split(np.zeros((1, 2), np.int32)),
            vj.Split(np.zeros((1, 2), np.int32)),
            "here",
            class_names=("cat", "dog"),
        ),
        "Dataset('c', source='here',\n"
        "  train=Split(images=int32[1, 2], 8 B),\n"
        "  test=Split(images=int32[1, 2], 8 B),\n"
        "  class_names=(cat, dog))",
    ),
    "batch": (
        lambda: vj.Batch(jnp.zeros((2, 3)), label=jnp.zeros(2, jnp.int32), condition={"a": jnp.zeros(2), "b": [0]}),
        "Batch(x=float32[2, 3], label=int32[2], condition={'a': float32[2], 'b': [0]})",
    ),
}


@pytest.mark.parametrize("case", PRINTED)
def test_a_repr_has_shapes_dtypes_names_and_sizes_and_no_numbers_of_an_array(case):
    make, expected = PRINTED[case]
    assert repr(make()) == expected


def test_a_batch_is_printed_under_transformations():
    seen = []
    batch = vj.Batch(jnp.zeros((2, 3)))
    jax.jit(lambda batch: seen.append(repr(batch)))(batch)
    jax.vmap(lambda batch: seen.append(repr(batch)))(batch)
    seen.append(repr(jax.eval_shape(lambda batch: batch, batch)))
    assert seen == ["Batch(x=float32[2, 3])", "Batch(x=float32[3])", "Batch(x=float32[2, 3])"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (47_040_000, "44.9 MiB"),
        (3 * 2**40, "3 TiB"),
        (2**52, "4.1e+03 TiB"),
    ],
)
def test_sizes_have_units(size, text):
    assert size_of(size) == text


def test_long_lists_of_names_are_shortened():
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some([str(number) for number in range(2_003)]) == "0, 1, 2 and 2,000 more"


@pytest.mark.parametrize(
    "transform", [vj.Scale(), vj.Binarize(), vj.StaticBinarize(), vj.Dequantize(), vj.Raw(), vj.Mirrored(), Colour()]
)
def test_transforms_pass_the_check(transform):
    require_transform(transform)


def test_a_function_with_support_and_label_is_a_transform():
    transform = partial(lambda keys, images, labels=None: vj.Batch(images))
    transform.support, transform.label = vj.Support(0.0, 1.0), "own"
    require_transform(transform)


def test_a_mask_of_one_split_makes_bytes_of_both_real():
    known = np.ones(BYTES.shape, bool)
    known[0, 0] = False
    data = from_arrays(BYTES, BYTES[:2], train_observed=known)
    assert data.train.images.dtype == data.test.images.dtype == np.float32
    np.testing.assert_array_equal(data.test.images, BYTES[:2])
    assert (data.train.has_missing, data.test.has_missing) == (True, False)
    assert from_arrays(BYTES[:2], BYTES, test_observed=known).train.images.dtype == np.float32
