"""`Dataset.from_folder`: grey and colour images, class folders, splits, and folders that can't be used."""

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj


def save(path, mode="L", size=(4, 6), seed=0, **settings):
    """A random image of height x width `size`; its array."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    array = np.random.default_rng(seed).integers(0, 256, (*size, *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path, **settings)
    return array


def test_grey_images_have_one_channel_and_the_split_is_a_seeded_draw(tmp_path):
    arrays = [save(tmp_path / f"{i:02}.png", seed=i) for i in range(10)]
    data = vj.Dataset.from_folder(tmp_path, test_share=0.3, seed=1)
    assert (data.name, data.train.event_shape) == (tmp_path.name, (4, 6, 1))
    assert (len(data.train), len(data.test), data.train.labels) == (7, 3, None)
    everything = np.concatenate([data.train.images, data.test.images])[..., 0]
    assert {image.tobytes() for image in everything} == {array.tobytes() for array in arrays}
    again, other = (vj.Dataset.from_folder(tmp_path, test_share=0.3, seed=seed) for seed in (1, 2))
    assert again.test.digest == data.test.digest != other.test.digest


def test_one_colour_image_makes_all_of_them_rgb_without_transparency(tmp_path):
    grey, colour = save(tmp_path / "a.png"), save(tmp_path / "b.png", "RGBA", seed=1)
    save(tmp_path / "c.png", "LA", seed=2)
    Image.fromarray(save(tmp_path / "d.png", "RGB", seed=3)).convert("P").save(tmp_path / "e.png")
    data = vj.Dataset.from_folder(tmp_path, test_share=0.2)
    images = {image.tobytes() for split in (data.train, data.test) for image in split.images}
    assert data.train.event_shape == (4, 6, 3)
    assert np.repeat(grey[..., None], 3, axis=-1).tobytes() in images
    assert colour[..., :3].tobytes() in images


def test_class_folders_are_labels_in_the_order_of_their_names(tmp_path):
    for label, kind in enumerate(("cat", "dog")):
        for i in range(4):
            save(tmp_path / kind / f"{i}.png", seed=10 * label + i)
    data = vj.Dataset.from_folder(tmp_path, test_share=0.25)
    cats = {save(tmp_path / "again" / "x.png", seed=i).tobytes() for i in range(4)}
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert (image.tobytes() in cats) == (label == 0)


def test_train_and_test_folders_are_the_splits(tmp_path):
    train = [save(tmp_path / "train" / kind / "x.png", seed=i) for i, kind in enumerate("ab")]
    save(tmp_path / "test" / "a" / "x.png", seed=5)
    test = save(tmp_path / "test" / "b" / "x.png", seed=6)
    data = vj.Dataset.from_folder(tmp_path, name="letters")
    assert data.name == "letters"
    np.testing.assert_array_equal(data.train.images[..., 0], train)
    np.testing.assert_array_equal(data.test.images[1, ..., 0], test)
    np.testing.assert_array_equal(data.test.labels, [0, 1])


def test_images_are_cropped_about_their_centre_and_resized(tmp_path):
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 4:12] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.full((4, 4), 100, np.uint8)).save(tmp_path / "square.png")
    data = vj.Dataset.from_folder(tmp_path, size=(4, 4), test_share=0.5)
    square, centre = sorted(split.images[0].mean() for split in (data.train, data.test))
    assert square == 100
    assert centre > 190, "the dark sides are cropped; the filter reaches a little beyond the edges"


def test_the_orientation_that_a_camera_has_recorded_is_applied(tmp_path):
    array = np.zeros((4, 6), np.uint8)
    array[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    for name in "ab":
        Image.fromarray(array).save(tmp_path / f"{name}.png", exif=exif)
    image = vj.Dataset.from_folder(tmp_path, test_share=0.5).train.images[0, ..., 0]
    np.testing.assert_array_equal(image, np.rot90(array, -1))


def mixed(folder):
    save(folder / "a.png")
    save(folder / "b.png", size=(5, 7))


def damaged(folder):
    save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")


def beside(folder):
    save(folder / "a.png")
    save(folder / "cat" / "b.png")


def other_classes(folder):
    save(folder / "train" / "cat" / "a.png")
    save(folder / "test" / "dog" / "a.png")


def empty_class(folder):
    save(folder / "cat" / "a.png")
    (folder / "dog").mkdir()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (lambda folder: folder.mkdir(exist_ok=True), {}, "has no images; expected files that end in .png"),
        (mixed, {}, r"a.png \(4 x 6\) and b.png \(5 x 7\) differ in height x width; give size="),
        (damaged, {}, r"b.png can't be read as an image \(.*\); remove it or replace it"),
        (beside, {}, r"has images \(a.png\) beside class folders"),
        (other_classes, {}, r"have the class folders \['cat'\] and \['dog'\]; expected the same ones"),
        (empty_class, {}, "dog has no images"),
        (lambda folder: save(folder / "a.png"), {}, "has 1 images, too few"),
        (mixed, {"size": (4,)}, r"size is \(4,\); expected \(height, width\)"),
        (mixed, {"size": (4, 4), "test_share": 1.0}, "test_share is 1.0; expected a share"),
    ],
)
def test_folders_that_can_not_be_used_are_refused(tmp_path, make, settings, message):
    make(tmp_path)
    with pytest.raises(vj.DataError, match=message) as error:
        vj.Dataset.from_folder(tmp_path, **settings)
    assert "\n" not in str(error.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(vj.DataNotFoundError, match="does not exist or is not a folder"):
        vj.Dataset.from_folder(tmp_path / "nowhere")
