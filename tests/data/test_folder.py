"""Folders of PNG and JPEG images: classes, splits, modes, orientation, crop and resize, bad input."""

import shutil

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax.data import folder as reader

GENERATOR = np.random.default_rng(0)


def noise(height=6, width=4, channels=None):
    return GENERATOR.integers(0, 256, (height, width, *([channels] if channels else [])), dtype=np.uint8)


def save(path, pixels, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **settings)
    return path


def grey(number, height=6, width=4):
    """An image whose pixels tell its number."""
    return np.full((height, width), 10 * number, np.uint8)


def numbers(split):
    return (split.images[:, 0, 0, 0] // 10).tolist()


def plain(path, count=10):
    for number in range(count):
        save(path / f"{number:02d}.png", grey(number))
    return path


def classes(path, counts):
    """Images in class folders, numbered in the sorted order of classes and names."""
    number = 0
    for name, count in sorted(counts.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            save(path / name / f"{number:02d}.png", grey(number))
            number += 1
    return path


def one(path, **settings):
    """The only image of a test split beside one training image of the same kind."""
    return vj.Dataset.from_folder(path, test_share=0.5, **settings)


def test_a_folder_of_images_is_split_at_random(tmp_path):
    data = vj.Dataset.from_folder(plain(tmp_path / "pictures"), test_share=0.3)
    assert (data.name, data.event_shape, data.class_names) == ("pictures", (6, 4, 1), None)
    assert data.train.labels is None
    assert (len(data.train), len(data.test), data.validation) == (7, 3, None)
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(10))
    assert data.source == "PNG and JPEG files in pictures/, 0.3 of them drawn for the test split with seed 0"
    again = vj.Dataset.from_folder(str(tmp_path / "pictures"), test_share=0.3, name="own")
    assert again.name == "own"
    assert (again.train.digest, again.test.digest) == (data.train.digest, data.test.digest)
    other = vj.Dataset.from_folder(tmp_path / "pictures", test_share=0.3, seed=1)
    assert set(numbers(other.test)) != set(numbers(data.test))


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 9), (np.float32(0.25), 2)])
def test_each_split_has_an_image(tmp_path, share, count):
    data = vj.Dataset.from_folder(plain(tmp_path), test_share=share)
    assert (len(data.train), len(data.test)) == (10 - count, count)


def test_labels_are_the_sorted_classes(tmp_path):
    folder = classes(tmp_path / "animals", {"dog": 4, "cat": 3, "Bird": 5})
    (folder / ".thumbnails").mkdir()
    (folder / "cat" / "notes.txt").touch()
    save(folder / "cat" / ".hidden.png", grey(21))
    save(folder / "cat" / "upper.JPEG", grey(20), format="JPEG", quality=100)
    data = vj.Dataset.from_folder(folder)
    assert data.class_names == ("Bird", "cat", "dog")
    expected = dict.fromkeys(range(5), 0) | dict.fromkeys(range(5, 8), 1) | dict.fromkeys(range(8, 12), 2) | {20: 1}
    found = {}
    for split in data.splits.values():
        found |= dict(zip(numbers(split), split.labels.tolist(), strict=True))
    assert found == expected
    assert data.hold_out(2).class_names == data.class_names
    assert "class_names=(Bird, cat, dog)" in repr(data)


def test_hold_out_takes_images_of_several_classes(tmp_path):
    data = vj.Dataset.from_folder(classes(tmp_path, {"a": 12, "b": 12}))
    assert set(data.hold_out(8).test.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_splits_at_the_top(tmp_path, validation):
    classes(tmp_path / "train", {"cat": 3, "dog": 4})
    classes(tmp_path / "test", {"dog": 2})
    if validation:
        classes(tmp_path / validation, {"cat": 1, "dog": 1})
    data = vj.Dataset.from_folder(tmp_path)
    assert sorted(numbers(data.train)) == list(range(7))
    assert [int(number >= 3) for number in numbers(data.train)] == data.train.labels.tolist()
    assert numbers(data.test) == [0, 1]
    assert data.test.labels.tolist() == [1, 1]
    assert (data.validation.labels.tolist() == [0, 1]) if validation else data.validation is None
    assert "drawn" not in data.source


def test_a_training_folder_without_a_test_folder_is_split(tmp_path):
    plain(tmp_path / "train")
    plain(tmp_path / "val", 2)
    data = vj.Dataset.from_folder(tmp_path)
    assert (len(data.train), len(data.test), len(data.validation)) == (9, 1, 2)


def test_classes_may_have_the_name_of_a_split(tmp_path):
    data = vj.Dataset.from_folder(classes(tmp_path / "a", {"train": 4, "bus": 4}))
    assert data.class_names == ("bus", "train")
    data = vj.Dataset.from_folder(classes(tmp_path / "b", {"test": 4, "control": 4}))
    assert data.class_names == ("control", "test")


def test_grey_images_beside_colour_images_have_three_channels(tmp_path):
    colour = noise(channels=3)
    save(tmp_path / "train" / "0.png", grey(7))
    save(tmp_path / "test" / "0.png", colour)
    data = vj.Dataset.from_folder(tmp_path)
    np.testing.assert_array_equal(data.train.images[0], np.broadcast_to(grey(7)[..., None], (6, 4, 3)))
    np.testing.assert_array_equal(data.test.images[0], colour)


def palette(colours, indices, **settings):
    image = Image.new("P", indices.shape[::-1])
    image.putdata(indices.ravel().tolist())
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    return image, settings


def modes():
    """Images in each mode of PNG files: name -> (image, settings, expected pixels)."""
    l, rgb, alpha = noise(), noise(channels=3), noise()  # noqa: E741
    opaque = np.full((6, 4), 255, np.uint8)
    index = GENERATOR.integers(0, 2, (6, 4))
    colours, greys = np.array([[255, 0, 0], [0, 9, 200]]), np.array([[7, 7, 7], [99, 99, 99]])
    over_white = np.round(rgb * (alpha / 255)[..., None] + 255 - alpha[..., None])
    wide = GENERATOR.integers(0, 65536, (6, 4), dtype=np.uint16)
    return {
        "L": (Image.fromarray(l), {}, l[..., None]),
        "RGB": (Image.fromarray(rgb), {}, rgb),
        "1": (Image.fromarray(l > 127), {}, 255 * (l > 127)[..., None]),
        "16 bits": (Image.fromarray(wide), {}, np.round(wide / 257)[..., None]),
        "RGBA": (Image.fromarray(np.dstack([rgb, alpha])), {}, over_white),
        "RGBA, opaque": (Image.fromarray(np.dstack([rgb, opaque])), {}, rgb),
        "LA": (Image.merge("LA", [Image.fromarray(l), Image.fromarray(opaque)]), {}, l[..., None]),
        "LA, clear": (Image.merge("LA", [Image.fromarray(l), Image.fromarray(0 * l)]), {}, 0 * l[..., None] + 255),
        "palette": (*palette(colours, index), colours[index]),
        "grey palette": (*palette(greys, index), greys[index][..., :1]),
        "palette with a transparent colour": (
            *palette(colours, index, transparency=0),
            np.where(index[..., None] == 0, 255, colours[index]),
        ),
        "grey with a transparent value": (
            Image.fromarray(grey(3)),
            {"transparency": 30},
            np.full((6, 4, 1), 255),
        ),
    }


@pytest.mark.parametrize("mode", modes())
def test_each_mode_of_png(tmp_path, mode):
    image, settings, expected = modes()[mode]
    for name in ("a.png", "b.png"):
        save(tmp_path / name, image, **settings)
    images = one(tmp_path).test.images
    assert images.shape[1:] == expected.shape
    np.testing.assert_allclose(images[0].astype(int), expected, atol=1 if mode == "RGBA" else 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_each_mode_of_jpeg(tmp_path, mode):
    image = Image.new("RGB", (16, 8), (200, 30, 90) if mode != "L" else (70, 70, 70)).convert(mode)
    for name in ("a.jpg", "b.jpeg"):
        save(tmp_path / name, image, quality=100)
    images = one(tmp_path).test.images
    assert images.shape == (1, 8, 16, 1 if mode == "L" else 3)
    np.testing.assert_allclose(
        images[0], np.broadcast_to([70] if mode == "L" else [200, 30, 90], images[0].shape), atol=3
    )


def corners(height, width):
    """Blocks of four greys in the corners; the upper left is the darkest."""
    image = np.zeros((height, width), np.uint8)
    image[: height // 2, width // 2 :] = 80
    image[height // 2 :, : width // 2] = 160
    image[height // 2 :, width // 2 :] = 240
    return image


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [None, (16, 8)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(tmp_path, orientation, size, suffix):
    """The stored pixels are the upright image before the turn that `orientation` asks for."""
    upright = corners(160, 80) if size else corners(16, 8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"quality": 95} if suffix == "jpg" else {}
    for name in "ab":
        save(tmp_path / f"{name}.{suffix}", np.ascontiguousarray(stored), exif=exif, **settings)
    image = one(tmp_path, size=size).test.images[0]
    assert image.shape == (16, 8, 1)
    np.testing.assert_allclose(image[3::10, 1::5, 0].astype(int), [[0, 80], [160, 240]], atol=12)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 130), (131, 64), (640, 990)])
def test_the_centre_is_cropped_and_resized(tmp_path, height, width, suffix):
    """Red and green are linear in the coordinates, so they say which part of the image is in the result."""
    side = min(height, width)
    pixels = np.zeros((height, width, 3))
    pixels[..., 0] = 20 + 200 * (np.arange(width) + 0.5) / width
    pixels[..., 1] = (20 + 200 * (np.arange(height) + 0.5) / height)[:, None]
    settings = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    for name in "ab":
        save(tmp_path / f"{name}.{suffix}", np.uint8(np.round(pixels)), **settings)
    data = one(tmp_path, size=8)
    assert data.event_shape == (8, 8, 3)
    offsets = (np.arange(8) - 3.5) / 8 * side
    found = data.test.images[0].astype(float)
    np.testing.assert_allclose(found[..., 0].mean(0), 120 + 200 * offsets / width, atol=2.5)
    np.testing.assert_allclose(found[..., 1].mean(1), 120 + 200 * offsets / height, atol=2.5)
    assert "cropped and resized to 8 x 8" in data.source


def test_resizing_is_antialiased(tmp_path):
    checkers = 255 * (np.indices((64, 64)).sum(0) % 2).astype(np.uint8)
    for name in "ab":
        save(tmp_path / f"{name}.png", checkers)
    found = one(tmp_path, size=(4, 4)).test.images
    assert np.all(abs(found.astype(int) - 127) < 10)


@pytest.mark.parametrize("size", [(3, 7), [7, 3], (1, 1), (13, 13), 5, np.int64(5)])
def test_images_of_different_sizes_are_brought_to_one(tmp_path, size):
    for number, (height, width) in enumerate([(5, 9), (9, 5), (13, 13), (2, 2), (1, 17)]):
        save(tmp_path / f"{number}.png", noise(height, width, 3))
    expected = (5, 5) if np.ndim(size) == 0 else tuple(size)
    assert vj.Dataset.from_folder(tmp_path, size=size).event_shape == (*expected, 3)


def test_images_of_the_size_are_not_changed(tmp_path):
    pixels = noise(6, 4, 3)
    for name in "ab":
        save(tmp_path / f"{name}.png", pixels)
    np.testing.assert_array_equal(one(tmp_path, size=(6, 4)).test.images[0], pixels)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / f"{name}.jpg", Image.new("RGB", (640, 480), "red"))
    sizes, resize = [], Image.Image.resize

    def recorded(image, *args, **kwargs):
        sizes.append(image.size)
        return resize(image, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    one(tmp_path, size=48)
    assert sizes == [(160, 120), (160, 120)]


def test_many_images_are_decoded_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_BLOCK", 3)
    plain(tmp_path / "train", 2)
    plain(tmp_path / "test", 20)
    assert numbers(vj.Dataset.from_folder(tmp_path).test) == list(range(20))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


BAD = {
    "no folder": (lambda path: path / "none", {}, "none does not exist or is not a folder; check the path"),
    "a file": (lambda path: save(path / "a.png", grey(1)), {}, "a.png does not exist or is not a folder"),
    "nothing": (lambda path: path, {}, "no PNG or JPEG images were found in .*; expected images, one sub-folder of"),
    "other files": (lambda path: ((path / "a.webp").touch(), path)[1], {}, "no PNG or JPEG images were found"),
    "empty classes": (lambda path: ((path / "cat").mkdir(), path)[1], {}, "no PNG or JPEG images were found"),
    "one image": (lambda path: plain(path, 1), {}, "holds one image; expected two or more"),
    "not an image": (
        lambda path: ((plain(path) / "03.png").write_bytes(b"text"), path)[1],
        {},
        r"1 of 10 images in .* cannot be decoded: 03\.png \(not an image of a format that Pillow reads\); replace or",
    ),
    "truncated": (
        lambda path: (truncated(classes(path, {"a": 3, "b": 1}) / "a" / "01.png"), path)[1],
        {},
        r"1 of 4 images in .* cannot be decoded: a/01\.png \(.*\); replace or remove them",
    ),
    "all unreadable": (
        lambda path: ([(path / f"{n:02d}.png").write_bytes(b"") for n in range(5)], path)[1],
        {},
        r"5 of 5 images .*: 00\.png \(.*\), 01\.png \(.*\), 02\.png \(.*\) and 2 more; replace",
    ),
    "mixed sizes": (
        lambda path: (save(plain(path) / "07.png", grey(7, 9, 5)), path)[1],
        {},
        r"^00\.png has 6 x 4 pixels \(height x width\), but 07\.png has 9 x 5; expected one size: give size=\(h",
    ),
    "sizes swapped by orientation": (
        lambda path: (
            save(
                plain(path) / "07.jpg",
                grey(7),
                exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
            ),
            path,
        )[1],
        {},
        r"^00\.png has 6 x 4 pixels .*, but 07\.jpg has 4 x 6",
    ),
    "sizes of splits": (
        lambda path: (plain(path / "train"), save(path / "test" / "0.png", grey(1, 8, 8)), path)[2],
        {},
        r"train/00\.png has 6 x 4 .*, but test/0\.png has 8 x 8",
    ),
    "empty class": (
        lambda path: ((classes(path, {"cat": 2}) / "dog").mkdir(), path)[1],
        {},
        "the class folder .*dog holds no PNG or JPEG images; add some or remove the folder",
    ),
    "images and classes": (
        lambda path: (save(classes(path, {"cat": 2}) / "x.png", grey(1)), path)[1],
        {},
        r"holds both images \(x\.png\) and sub-folders of images \(cat\); expected one or the other: move",
    ),
    "images and splits": (
        lambda path: (plain(path / "train"), plain(path, 1))[1],
        {},
        r"holds both images \(00\.png\) and the splits train; expected one or the other",
    ),
    "test alone": (lambda path: (plain(path / "test"), path)[1], {}, "sub-folder test but no sub-folder train; add"),
    "two validation splits": (
        lambda path: ([plain(path / name) for name in ("train", "val", "validation")], path)[1],
        {},
        "holds the sub-folders val and validation; expected one of them: remove the other",
    ),
    "splits and classes": (
        lambda path: ([plain(path / name) for name in ("train", "test", "extra")], path)[1],
        {},
        "holds the splits test, train and the sub-folders extra; expected splits or classes, not both: move",
    ),
    "classes in one split": (
        lambda path: (classes(path / "train", {"a": 2}), plain(path / "test"), path)[2],
        {},
        "has class folders in train but not in test; expected them in all splits or in none",
    ),
    "class of the test split alone": (
        lambda path: (classes(path / "train", {"a": 2}), classes(path / "test", {"a": 1, "b": 1}), path)[2],
        {},
        "has the class 'b' in test but not in train; expected classes that training images have: rename",
    ),
    **{
        f"test_share {share!r}": (
            plain,
            {"test_share": share},
            rf"test_share is {share!r}; expected a number between 0",
        )
        for share in (0, 1, 0.0, 1.5, -0.1, float("nan"), True, "half", None)
    },
    **{
        f"seed {seed!r}": (plain, {"seed": seed}, rf"seed is {seed!r}; expected a whole number of at least 0")
        for seed in (-1, 0.5, True, None)
    },
    "size of three": (
        plain,
        {"size": (4, 4, 3)},
        r"size is \(4, 4, 3\); expected \(height, width\) in pixels, such as",
    ),
    "size a string": (plain, {"size": "64x64"}, r"size is '64x64'; expected \(height, width\) in pixels"),
    "size zero": (plain, {"size": 0}, "the height of size is 0; expected a whole number of at least 1"),
    "size real": (plain, {"size": (4, 4.5)}, "the width of size is 4.5; expected a whole number of at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_cannot_be_used_is_an_error_of_one_sentence(tmp_path, case):
    make, settings, message = BAD[case]
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(vj.InputError, match=message) as caught:
        vj.Dataset.from_folder(make(folder), **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence
    shutil.rmtree(folder)
