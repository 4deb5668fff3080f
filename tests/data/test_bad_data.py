"""Data that cannot be used: each error is one sentence with the value, the expectation and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.data.transforms import as_split, as_transform, require_transform

BYTES = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
TABLE = np.arange(12.0).reshape(3, 4) / 7
ATTRIBUTES = vj.Attributes(("Male", "Smiling"), np.array([[True, False]]))
SPLIT = small_split(8)


def arrays(train=BYTES, train_labels=None, **settings):
    settings = {"test_images": BYTES, "test_labels": None if train_labels is None else np.arange(3)} | settings
    return vj.Dataset.from_arrays("own", train, train_labels, **settings)


def labels(values):
    return arrays(BYTES, values)


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("tensor on a GPU.\nmore")


BAD = {
    "int images, 256": (lambda: arrays(np.full((3, 4, 4), 256)), "runs from 256 to 256; expected 0 to 255: rescale"),
    "int images, -1": (lambda: arrays(np.full((3, 4, 4), -1)), "runs from -1 to -1; expected 0 to 255"),
    "counts beyond int32": (lambda: arrays(np.full((3, 4), 2**31)), "2147483648 to 2147483648; expected .* fit int32"),
    "booleans": (lambda: arrays(BYTES > 3), r"dtype bool; expected numbers: convert it by \.astype\(np\.float32\)"),
    "complex": (lambda: arrays(BYTES * 1j), r"dtype complex128; expected real numbers: convert it"),
    "dates": (lambda: arrays(np.zeros((3, 4), "datetime64[D]")), r"dtype datetime64\[D\]; expected real numbers"),
    "records": (lambda: arrays(np.zeros((3, 4), "i4,f4")), r"train_images has dtype .*; expected real numbers"),
    "NaN": (lambda: arrays(np.full((3, 4), np.nan)), "train_images hold NaN .* or a mask of the known entries"),
    "infinite in float32": (lambda: arrays(np.full((3, 4), 1e300)), "beyond the range of float32; rescale"),
    "one axis": (lambda: arrays(np.zeros(16, np.uint8)), r"has shape \(16,\); expected \[N, height, width, channels\]"),
    "no examples": (lambda: arrays(BYTES[:0]), r"shape \(0, 4, 4, 1\); expected at least one example"),
    "no examples, float": (lambda: arrays(TABLE[:0]), r"shape \(0, 4\); expected at least one example"),
    "shapes": (lambda: arrays(BYTES[:, :3]), r"images are \(3, 4, 1\) but test images are \(4, 4, 1\); expected one"),
    "shapes of a table": (lambda: arrays(BYTES.reshape(3, 16)), r"training images are \(16,\) but"),
    "dtypes": (
        lambda: arrays(TABLE, test_images=np.ones((2, 4), int)),
        "images are float32 but test images are int32; expected one dtype: convert one",
    ),
    "name missing": (
        lambda: vj.Dataset.from_arrays(BYTES, np.arange(3), test_images=BYTES),
        r"name is an array uint8\[3, 4, 4\]; expected a string: Dataset\.from_arrays\(name, train_images,",
    ),
    "ragged list": (
        lambda: arrays([[1.0, 2.0], [1.0]]),
        r"ragged: example 0 has shape \(2,\), but example 1 \(1,\); expected .* one shape: pad or crop",
    ),
    "ragged rows": (lambda: arrays([[[1], [1, 2]], [[1], [1, 2]]]), "train_images is ragged; expected examples of one"),
    "ragged and not": (lambda: arrays([[[1], [2]], [[1], [1, 2]]]), r"ragged: example 0 .* 1 \(2, 'ragged'\)"),
    "images of two sizes": (
        lambda: arrays([np.zeros((4, 4)), np.zeros((4, 5))]),
        r"ragged: example 0 has shape \(4, 4\), but example 1 \(4, 5\)",
    ),
    "text": (
        lambda: arrays([["a", "b"]]),
        r"dtype <U1 \(text, such as .*'a'.*\); expected real numbers: select the nu",
    ),
    "objects": (
        lambda: arrays(np.array([[1.0, "north"]], object)),
        r"dtype object \(values that are not numbers, such as 'north'\); expected real numbers: select the numeric",
    ),
    "numbers as objects": (
        lambda: arrays(np.array([[1.0, 2]], object)),
        r"dtype object \(numbers as objects\); expected real numbers: convert it by \.astype\(np\.float32\)",
    ),
    "None in a list": (lambda: arrays([[1.0, None]]), "values that are not numbers, such as None"),
    "not an array": (lambda: arrays("mnist"), "train_images is 'mnist'; expected an array, a data frame or nested lis"),
    "no array": (lambda: arrays(None), "train_images is None; expected an array"),
    "an iterator": (lambda: arrays(iter(BYTES)), "train_images is an object of type .*iterator; expected an array"),
    "broken __array__": (
        lambda: arrays(Broken()),
        r"object of type Broken that NumPy cannot convert \(tensor on a GPU\); expected an array",
    ),
    "list of broken __array__": (lambda: arrays([Broken()]), r"a list that NumPy cannot convert \(tensor on a GPU\)"),
    "masked": (
        lambda: arrays(np.ma.masked_array(TABLE, TABLE > 1)),
        r"masked array; expected an array without a mask: give x\.filled\(0\), and ~x\.mask as train_observed",
    ),
    "mask of another shape": (
        lambda: arrays(TABLE, test_images=TABLE, train_observed=TABLE[:2] > 0),
        r"the mask of train_images is bool of shape \(2, 4\); expected bool \(3, 4\): True marks",
    ),
    "mask of numbers": (
        lambda: arrays(TABLE, test_images=TABLE, train_observed=TABLE),
        "is float64 of shape .*expected",
    ),
    "channels first": (
        lambda: arrays(np.zeros((2, 3, 4, 4), np.uint8)),
        r"train_images has shape \(2, 3, 4, 4\); expected .*: np\.moveaxis\(images, 1, -1\) if .*, channels_last=True",
    ),
    "channels first, grey": (lambda: arrays(np.zeros((2, 1, 4, 4), np.uint8)), r"np\.moveaxis\(images, 1, -1\)"),
    "channels first, real": (lambda: arrays(np.zeros((2, 3, 4, 4))), r"np\.moveaxis\(images, 1, -1\)"),
    "channels first, test": (
        lambda: arrays(test_images=np.zeros((2, 1, 4, 4), np.uint8)),
        r"test_images has shape .*np\.moveaxis",
    ),
    "channels first, array": (
        lambda: as_split(np.zeros((2, 3, 4, 4), np.uint8)),
        r"the data has shape .*np\.moveaxis\(images, 1, -1\) if .*, vj\.Split\(images\) if they are the last",
    ),
    "labels of train alone": (
        lambda: arrays(BYTES, np.arange(3), test_labels=None),
        "train_labels are given but test_labels are not; give both or neither",
    ),
    "labels of test alone": (
        lambda: arrays(BYTES, test_labels=np.arange(3)),
        "test_labels are given but train_labels are not; give both or neither",
    ),
    "number of labels": (
        lambda: labels(np.arange(2)),
        r"3 images but labels of shape \(2,\); expected one label per im",
    ),
    "labels, whole floats": (
        lambda: labels(np.arange(3.0)),
        r"train_labels has dtype float64; expected class numbers from 0: convert them by \.astype\(np\.int32\)",
    ),
    "labels, booleans": (lambda: labels(np.arange(3) > 1), r"has dtype bool; expected class .*\.astype\(np\.int32\)"),
    "labels, fractions": (
        lambda: labels(np.arange(3) / 2),
        r"class numbers from 0: np\.unique\(labels, return_inverse",
    ),
    "labels, NaN": (lambda: labels(np.array([0, 1, np.nan])), r"class numbers from 0: np\.unique\(labels, return_inve"),
    "labels, text": (
        lambda: labels(["cat", "dog", "cat"]),
        r"dtype <U3 \(text, such as .*cat.*\); expected real numbers: np\.unique\(labels, return_inverse=True\)\[1\]",
    ),
    "labels, objects": (
        lambda: labels(np.array(["cat", "dog", "cat"], object)),
        r"not numbers, such as 'cat'\); .*: np\.unique\(labels, return_inverse=True\)\[1\] numbers the classes",
    ),
    "labels, negative": (lambda: labels(np.array([0, -1, 1])), r"runs from -1 to 1; expected 0 to .*: np\.unique\("),
    "labels, column": (lambda: labels(np.zeros((3, 1), int)), r"shape \(3, 1\); expected \[N\]: labels\.ravel\(\)"),
    "labels, one-hot": (lambda: labels(np.eye(3)), r"expected \[N\]: labels\.argmax\(axis=1\) for one-hot labels"),
    "an integer for an attribute": (
        lambda: ATTRIBUTES[3],
        r"was given 3; expected the name of an attribute, one of Male, Smiling: attributes\.rows\(index\) ",
    ),
    "a slice for an attribute": (lambda: ATTRIBUTES[:2], "was given an object of type slice; expected the name"),
    "names for an attribute": (lambda: ATTRIBUTES[["Male", "Smiling"]], "was given a list; expected the name"),
    "an integer where both are required": (lambda: ATTRIBUTES.require_both(0), "was given 0; expected the name of"),
    "a similar attribute": (lambda: ATTRIBUTES["smile"], "no attribute has the name 'smile'; did you mean Smiling?"),
    "an unknown attribute": (lambda: ATTRIBUTES["zzz"], "has the name 'zzz'; expected one of Male, Smiling"),
    "an integer for a slice": (lambda: SPLIT[3], r"indexed by 3; expected a slice, such as split\[3:4\]"),
    "iteration over a split": (lambda: next(iter(SPLIT)), r"indexed by 0; expected a slice, such as split\[0:1\]"),
    "data set": (lambda: as_split(arrays()), r"a Dataset was given; expected one of its splits, such as data\.train"),
    "empty list": (
        lambda: as_split([]),
        r"the data are an empty list; expected a Split, or an array \[n, \.\.\.\] of ex",
    ),
    "list": (lambda: as_split([[1.0]]), r"the data are a list; expected .*: convert it by np\.asarray"),
    "tuple": (lambda: as_split((BYTES, np.arange(3))), r"a tuple; .*labels by vj\.Dataset\.from_arrays"),
    "name": (lambda: as_split("mnist"), r"'mnist'; expected a Split, .*: vj\.load\('mnist'\)\.train loads one by name"),
    "nothing": (lambda: as_split(None), "the data are None; expected a Split"),
    "generator": (lambda: as_split(iter(BYTES)), r"iterator; expected a Split, .*: vj\.Split\.from_batches collects"),
    "number": (lambda: as_split(3), "the data are 3; expected a Split, .*: collect the examples in a NumPy array"),
    "batches, one": (lambda: vj.Split.from_batches(BYTES), "batches are an? .*; expected a loader, a generator or"),
    "batches, none": (
        lambda: vj.Split.from_batches([]),
        "the batches have no entries; expected examples, or",
    ),
    "batches, three entries": (lambda: vj.Split.from_batches([(BYTES,) * 3]), "the batches have 3 entries; expected"),
    "batches, two kinds": (
        lambda: vj.Split.from_batches([BYTES, (BYTES, [0, 1, 2])]),
        "have 1 and 2 entries; exp",
    ),
    "batches, shapes": (
        lambda: vj.Split.from_batches([BYTES, BYTES[:, :2]]),
        r"the examples of batches have the shapes .*; expected one shape",
    ),
    "batches, dicts": (
        lambda: vj.Split.from_batches([{"image": BYTES}]),
        r"the batches are dicts; expected pairs: \(\(b\['image'\], b\['label'\]\) for b in batches\)",
    ),
    "batches, text": (lambda: vj.Split.from_batches([(BYTES, ["a", "b", "c"])]), "the labels of a batch has dtype <U1"),
    "class of splits": (lambda: as_split(vj.Split), "the data are the class Split; expected a Split"),
    "array class": (lambda: as_split(np.ndarray), "the data are the class ndarray; expected a Split"),
    "array of text": (lambda: as_split(np.array([["a"]])), "the data has dtype <U1"),
    "transform, class": (
        lambda: require_transform(vj.Binarize),
        r"transform is the class Binarize; expected .*: make an object of it by Binarize\(\)",
    ),
    "transform, name": (
        lambda: require_transform("binarize"),
        r"transform is 'binarize'; expected a transform, such as vj\.Binarize\(\)",
    ),
    "transform, None": (lambda: require_transform(None), "transform is None; expected a transform"),
    "transform, number": (lambda: require_transform(255), "transform is 255; expected a transform"),
    "transform, function": (
        lambda: require_transform(lambda keys, images, labels=None: images),
        "transform is <lambda>, which has no support and no label; expected a transform.* write a class with support",
    ),
    "transform, counts as bytes": (
        lambda: as_transform(vj.Binarize(), vj.Split(np.full((2, 4), 1000, np.int32))),
        r"Binarize\(\) takes whole numbers from 0 to 255, but the examples run from 1000 to 1000; choose another",
    ),
    "transform, values beyond its range": (
        lambda: as_transform(vj.Mirrored(vj.Raw(0.0, 1.0)), vj.Split(np.full((2, 4, 4, 1), 5.0, np.float32))),
        r"Raw\(.*\) takes values from 0 to 1, but the examples run from 5 to 5",
    ),
    "transform, values below its range": (
        lambda: as_transform(vj.Raw(0.0), vj.Split(np.float32([[1.0, -2.0]]))),
        "takes values from 0 to inf, but the examples run from -2 to 1",
    ),
    "transform, fractions as counts": (
        lambda: as_transform(vj.Raw(whole=True), vj.Split(np.float32([[1.0, 2.5]]))),
        "takes whole numbers from -inf to inf, but some examples are fractions",
    ),
    "transform, missing entries": (
        lambda: as_transform(vj.Mirrored(vj.Raw()), vj.Split(np.float32([[1.0, np.nan]]), has_missing=True)),
        r"the examples have missing entries, but Raw\(.*\) does not mark them; add missing=True",
    ),
    "mirrored class": (lambda: vj.Mirrored(vj.Binarize), r"transform is the class Binarize; .*Binarize\(\)"),
    "mirrored table": (
        lambda: vj.Mirrored(vj.Raw())(jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 4))),
        r"Mirrored was given examples of shape \(4,\); expected images \(height, width, channels\): use another",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_an_error_of_one_sentence(case):
    call, message = BAD[case]
    with pytest.raises(vj.InputError, match=message) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence


@pytest.mark.parametrize("case", [case for case in BAD if "transform" not in case and "mirrored" not in case])
def test_errors_of_arrays_are_data_errors(case):
    call, _ = BAD[case]
    with pytest.raises(vj.InputError) as caught:
        call()
    of_argument = str(caught.value).startswith(("the data are", "a Dataset"))
    assert isinstance(caught.value, vj.DataError) or of_argument
