"""CelebA with tiny files: the crop, both layouts and that of TFDS, the partition, the cache, resuming, bad input."""

import io
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax.data import Attributes, Crop, images, load_celeba
from vae_jax.data.cache import Parts, cache_dir
from vae_jax.data.celeba_files import seeded_partition

COUNT, NAMES = 12, ("Male", "Eyeglasses", "Smiling", "Bald")
VALUES = np.random.default_rng(0).random((COUNT, len(NAMES))) < 0.5
VALUES[:, 3] = False
SPLITS = [0] * 8 + [1] * 2 + [2] * 2


def name(number: int) -> str:
    return f"{number + 1:06d}.jpg"


def encoded(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=100)
    return buffer.getvalue()


def grey(number: int) -> int:
    return 20 * number + 10


def flat(number: int) -> bytes:
    return encoded(np.full((109, 89, 3), grey(number), np.uint8))


def table(names=NAMES, values=VALUES, count: int | None = None) -> str:
    rows = [f"{name(number)} " + "".join(f"{1 if v else -1:3d} " for v in row) for number, row in enumerate(values)]
    return "\n".join([str(len(rows) if count is None else count), " ".join(names) + " ", *rows, ""])


def write(folder, contents=None, layout="zip", inside="img_align_celeba/"):
    """The three files in `folder`; `contents` are the images' bytes by name."""
    contents = {name(number): flat(number) for number in range(COUNT)} if contents is None else contents
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "zip":
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for image, content in contents.items():
                archive.writestr(inside + image, content)
    else:
        (folder / "img_align_celeba").mkdir()
        for image, content in contents.items():
            (folder / "img_align_celeba" / image).write_bytes(content)
    (folder / "list_attr_celeba.txt").write_text(table())
    partition = "".join(f"{name(number)} {split}\n" for number, split in enumerate(SPLITS))
    (folder / "list_eval_partition.txt").write_text(partition)
    return folder


def one(content: bytes, **options) -> np.ndarray:
    """The pixels of one image."""
    return images.decode_image(content, **({"size": 64, "crop": Crop()} | options)).astype(float)


def digests(dataset: vj.Dataset) -> dict[str, str]:
    return {split: of_split.digest for split, of_split in dataset.splits.items()}


def as_written(dataset: vj.Dataset) -> bool:
    """Each image is in its split, with its attributes."""
    assert list(dataset.splits) == ["train", "validation", "test"]
    for number, split in enumerate(dataset.splits.values()):
        of_split = np.flatnonzero(np.array(SPLITS) == number)
        assert split.images.shape == (len(of_split), 64, 64, 3)
        assert split.labels is None
        np.testing.assert_array_equal(split.images[:, 5, 7, 1], [grey(image) for image in of_split])
        np.testing.assert_array_equal(split.attributes.values, VALUES[of_split])
        assert split.attributes.names == NAMES
    return True


@pytest.mark.parametrize("subfolder", ["", "celeba"])
@pytest.mark.parametrize(
    ("layout", "inside"), [("zip", "img_align_celeba/"), ("zip", ""), ("zip", "a/b/"), ("folder", "")]
)
def test_both_layouts_are_found_in_the_folder_or_its_subfolder(tmp_path, subfolder, layout, inside):
    write(tmp_path / subfolder, layout=layout, inside=inside)
    dataset = vj.load("celeba", tmp_path)
    assert as_written(dataset)
    assert dataset.name == "celeba"
    assert "split by list_eval_partition.txt" in dataset.source
    assert "resized to 64 x 64" in dataset.source


def test_layouts_have_the_same_digest_and_other_files_are_ignored(tmp_path):
    zipped, unpacked = write(tmp_path / "zip"), write(tmp_path / "folder", layout="folder")
    with zipfile.ZipFile(zipped / "img_align_celeba.zip", "a") as archive:
        archive.writestr("__MACOSX/._000001.jpg", b"")
        archive.writestr("img_align_celeba/readme.txt", b"")
    assert digests(vj.load("celeba", zipped)) == digests(vj.load("celeba", unpacked))


def rectangle(height: int, width: int) -> np.ndarray:
    """White on black in the middle half of the default crop of an image of that size."""
    rows = (np.arange(height) + 0.5) / height * 218 - 109
    columns = (np.arange(width) + 0.5) / width * 178 - 89
    return np.uint8(255) * ((abs(rows) < 35)[:, None, None] & (abs(columns) < 35)[None, :, None] & np.ones(3, bool))


def test_the_crop_is_the_centre():
    pixels = one(encoded(rectangle(218, 178), "PNG"))[..., 0]  # without the noise of JPEG
    assert (pixels[19:45, 19:45] == 255).all()
    outside = pixels.copy()
    outside[13:51, 13:51] = 0
    assert (outside == 0).all()
    assert pixels.sum() / 255 == pytest.approx(32 * 32, rel=0.01)
    np.testing.assert_allclose(pixels, pixels[::-1, ::-1], atol=1)
    np.testing.assert_allclose(pixels, pixels.T, atol=5)  # Pillow rounds between the two directions


def test_a_crop_of_the_whole_image_at_its_size_changes_nothing():
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(one(encoded(noise, "PNG"), size=32, crop=Crop(1.0, 1.0)), noise)
    upper = one(encoded(noise, "PNG"), size=16, crop=Crop(height=0.5, width=0.5))
    np.testing.assert_array_equal(upper, noise[8:24, 8:24])


def picture(scale: float) -> bytes:
    """A JPEG of smooth colours in an aligned frame, at any scale."""
    y = ((np.arange(round(218 * scale)) + 0.5) / scale / 218)[:, None, None]
    x = ((np.arange(round(178 * scale)) + 0.5) / scale / 178)[None, :, None]
    waves = np.sin(7 * x + np.array([0, 1, 2])) * np.cos(9 * y + np.array([1, 0, 3]))
    return encoded(np.uint8(np.round(127.5 + 120 * waves)))


@pytest.mark.parametrize("scale", [0.5, 2, 4, 8.3])
def test_scaled_copies_have_the_same_crop(scale):
    difference = np.abs(one(picture(scale)) - one(picture(1)))
    assert difference.max() < 6
    assert difference.mean() < 1


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    content, sizes = picture(8), []
    resize = Image.Image.resize

    def recorded(image, *args, **kwargs):
        sizes.append(image.size)
        return resize(image, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    drafted = one(content)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *args: None)
    whole = one(content)
    assert sizes == [(178, 218), (178 * 8, 218 * 8)]
    assert np.abs(drafted - whole).max() <= 3


def test_grey_images_become_rgb():
    pixels = one(encoded(np.full((109, 89), 77, np.uint8)))
    assert pixels.shape == (64, 64, 3)
    assert (pixels == 77).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
@pytest.mark.parametrize("side", ["height", "width"])
def test_a_crop_beyond_the_image_is_an_error(side, fraction):
    with pytest.raises(vj.DataError, match=f"the crop's {side} is .*at most 1"):
        Crop(**{side: fraction})


def test_each_size_and_crop_has_a_cache_entry(tmp_path):
    write(tmp_path)
    sizes = {load_celeba(tmp_path, size=size).event_shape for size in (8, 16, 8)}
    assert sizes == {(8, 8, 3), (16, 16, 3)}
    load_celeba(tmp_path, size=8, crop=Crop(1.0, 1.0))
    assert len(list(cache_dir().iterdir())) == 3
    with pytest.raises(vj.InputError, match="size is 0"):
        load_celeba(tmp_path, size=0)


def test_the_partition_without_a_file_is_a_function_of_the_name(tmp_path):
    names = [name(number) for number in range(20_000)]
    splits = seeded_partition(names)
    np.testing.assert_array_equal(seeded_partition(names[::-1])[::-1], splits)
    np.testing.assert_array_equal(seeded_partition(names[5:10]), splits[5:10])
    assert np.bincount(splits) / len(splits) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert splits[:COUNT].tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0]  # it must never change
    write(tmp_path)
    (tmp_path / "list_eval_partition.txt").unlink()
    dataset = vj.load("celeba", tmp_path)
    assert "by a hash of the file names" in dataset.source
    assert dataset.test.images[:, 0, 0, 0].tolist() == [grey(9)]
    assert dataset.validation.images[:, 0, 0, 0].tolist() == [grey(0), grey(3)]


def test_a_second_load_reads_the_cache(tmp_path, monkeypatch):
    first = vj.load("celeba", write(tmp_path))
    monkeypatch.setattr(images, "decode_image", lambda *args, **kwargs: pytest.fail("decoded again"))
    second = vj.load("celeba", tmp_path)
    assert as_written(second)
    assert isinstance(second.train.images, np.memmap)
    assert (second.source, digests(second)) == (first.source, digests(first))
    (entry,) = cache_dir().iterdir()
    assert not list(entry.glob("*.tmp"))


@pytest.mark.parametrize("layout", ["zip", "folder"])
def test_changed_images_are_decoded_again(tmp_path, layout):
    vj.load("celeba", write(tmp_path, layout=layout))
    other = {name(number): flat(COUNT - 1 - number) for number in range(COUNT)}
    shutil.rmtree(tmp_path / "img_align_celeba", ignore_errors=True)
    write(tmp_path, other, layout)
    assert vj.load("celeba", tmp_path).train.images[0, 0, 0, 0] == grey(COUNT - 1)


def test_a_changed_image_of_the_same_size_is_decoded_again(tmp_path):
    def padded(number):
        return flat(number).ljust(10_000, b"\0")

    write(tmp_path, {name(number): padded(number) for number in range(COUNT)}, "folder")
    vj.load("celeba", tmp_path)
    path = tmp_path / "img_align_celeba" / name(0)
    path.write_bytes(padded(5))
    os.utime(path, (0, 0))
    assert vj.load("celeba", tmp_path).train.images[0, 0, 0, 0] == grey(5)


@pytest.mark.parametrize("what", ["train_images.npy", "validation_images.npy", "test_attributes.npy"])
def test_a_damaged_cache_is_decoded_again(tmp_path, what):
    vj.load("celeba", write(tmp_path))
    (entry,) = cache_dir().iterdir()
    content = (entry / what).read_bytes()
    for damaged in (content[:-5], content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]):
        (entry / what).write_bytes(damaged)
        assert as_written(vj.load("celeba", tmp_path))
        assert (entry / what).read_bytes() == content


class Decoder:
    """`decode_image` with a count of the calls, interrupted at a given call."""

    def __init__(self, monkeypatch, killed_at: int | None = None) -> None:
        self.calls, self.killed_at, self.real = 0, killed_at, images.decode_image
        monkeypatch.setattr(images, "decode_image", self)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("half_a_part", [False, True])
def test_a_killed_run_resumes(tmp_path, monkeypatch, half_a_part):
    monkeypatch.setattr(images, "_BLOCK", 3)
    monkeypatch.setattr(images.os, "cpu_count", lambda: 1)  # so that the calls come in order
    write(tmp_path)
    with monkeypatch.context() as patch:
        Decoder(patch, killed_at=8)
        with pytest.raises(KeyboardInterrupt):
            vj.load("celeba", tmp_path)
    (folder,) = cache_dir().iterdir()
    parts = sorted(folder.iterdir())
    assert [part.name for part in parts] == ["train_0_3.npz", "train_3_6.npz"]
    if half_a_part:
        parts[0].write_bytes(parts[0].read_bytes()[:-100])
        content = bytearray(parts[1].read_bytes())
        content[5_000] ^= 1
        parts[1].write_bytes(content)
    decoder = Decoder(monkeypatch)
    resumed = vj.load("celeba", tmp_path)
    assert decoder.calls == (12 if half_a_part else 6)
    assert as_written(resumed)
    assert not folder.exists(), "the parts are still there"
    shutil.rmtree(cache_dir())
    assert digests(vj.load("celeba", tmp_path)) == digests(resumed)


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot cache celeba"):
        dataset = vj.load("celeba", write(tmp_path / "data"))
    assert as_written(dataset)


def test_parts_are_arrays_or_nothing(tmp_path):
    parts = Parts(tmp_path / "parts")
    assert parts.read("a") is None
    parts.write("a", {"x": np.arange(3)})
    assert parts.read("a")["x"].tolist() == [0, 1, 2]
    (parts.folder / "a.npz").write_bytes(b"")
    assert parts.read("a") is None
    parts.remove()
    assert not parts.folder.exists()


def with_bad_images() -> dict[str, bytes]:
    contents = {name(number): flat(number) for number in range(COUNT)}
    contents[name(1)] = b"no image"
    contents[name(3)] = contents[name(3)][:-300]
    contents[name(4)] = b""
    contents[name(9)] = contents[name(9)][:100]
    return contents


@pytest.mark.parametrize("layout", ["zip", "folder"])
def test_unreadable_images_are_listed_or_skipped(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(images, "_BLOCK", 3)  # so that bad images are in several blocks
    write(tmp_path, with_bad_images(), layout)
    with pytest.raises(vj.DataError, match="4 of 12 images") as caught:
        vj.load("celeba", tmp_path)
    message = str(caught.value)
    assert "000002.jpg (not an image of a format that Pillow reads), 000004.jpg (" in message
    assert "and 1 more; download them again" in message
    assert "skip_unreadable=True" in message
    decoder = Decoder(monkeypatch)
    with pytest.warns(UserWarning, match="4 of 12 images .* are left out"):
        dataset = load_celeba(tmp_path, skip_unreadable=True)
    assert decoder.calls == 0, "images of the first run are decoded again"
    kept = [0, 2, 5, 6, 7]
    assert dataset.train.images[:, 0, 0, 0].tolist() == [grey(number) for number in kept]
    np.testing.assert_array_equal(dataset.train.attributes.values, VALUES[kept])
    assert len(dataset.validation) == 1
    assert "4 unreadable images left out" in dataset.source
    assert digests(load_celeba(tmp_path, skip_unreadable=True)) == digests(dataset)
    with pytest.raises(vj.DataError, match="4 of 12"):
        vj.load("celeba", tmp_path)


def test_a_flipped_byte_in_a_zip_is_an_error(tmp_path):
    archive = write(tmp_path) / "img_align_celeba.zip"
    content = bytearray(archive.read_bytes())
    start = content.index(b"000003.jpg") + 200
    content[start] ^= 1
    archive.write_bytes(content)
    with pytest.raises(vj.DataError, match=r"1 of 12 images .*000003.jpg \(Bad CRC-32"):
        vj.load("celeba", tmp_path)


@pytest.mark.parametrize("how", ["truncated", "empty", "no zip"])
def test_a_damaged_zip(tmp_path, how):
    archive = write(tmp_path) / "img_align_celeba.zip"
    content = archive.read_bytes()
    archive.write_bytes({"truncated": content[:-200], "empty": b"", "no zip": b"<html>quota exceeded</html>"}[how])
    with pytest.raises(vj.DataError, match=r"celeba.zip is a damaged zip file, or not a zip file \(.*; download it"):
        vj.load("celeba", tmp_path)
    assert not cache_dir().exists()


def test_a_zip_of_other_images(tmp_path):
    write(tmp_path, {"cat.jpg": flat(0), "dog.jpg": flat(1)})
    expected = r"expected 000001.jpg, 000002.jpg, 000003.jpg and 9 more, found cat.jpg, dog.jpg"
    with pytest.raises(vj.DataError, match=f"holds no image that list_attr_celeba.txt lists; {expected}"):
        vj.load("celeba", tmp_path)
    write(tmp_path, {})
    with pytest.raises(vj.DataError, match="found none at all"):
        vj.load("celeba", tmp_path)


def test_images_without_attributes_and_attributes_without_images_are_an_error(tmp_path):
    contents = {name(number): flat(number) for number in (*range(2, COUNT), 12)}
    write(tmp_path, contents)
    with pytest.raises(vj.DataError, match=r"without an image: 2 \(000001.jpg, 000002.jpg\)") as caught:
        vj.load("celeba", tmp_path)
    assert "images without attributes: 1 (000013.jpg)" in str(caught.value)


def test_two_images_of_one_name_are_an_error(tmp_path):
    archive = write(tmp_path) / "img_align_celeba.zip"
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("again/000005.jpg", flat(5))
    with pytest.raises(vj.DataError, match=r"holds 000005\.jpg more than once"):
        vj.load("celeba", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with nothing: it is empty"),
        ("image_id,Male\n000001.jpg,-1\n000002.jpg,1\n", "begins with 'image_id,Male'; expected the number of images"),
        (table(count=13), "has 12 images; its first line states 13"),
        (table(count=11), "has 12 images; its first line states 11"),
        (table(names=NAMES[:3]), "expected a file name and 3 values of -1 or 1"),
        (table().replace("000003.jpg  -1", "000003.jpg   0").replace("000003.jpg   1", "000003.jpg   0"), "-1 or 1"),
        (table().replace("000003", "000002"), "has 000002.jpg more than once"),
        (table(names=("Male", "Male", "Young", "Bald")), "the name 'Male' more than once"),
        ("\xff\xfe", "is not text"),
    ],
)
def test_a_table_that_is_not_as_published(tmp_path, text, message):
    (write(tmp_path) / "list_attr_celeba.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(vj.DataError, match=message) as caught:
        vj.load("celeba", tmp_path)
    assert "list_attr_celeba.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("000012.jpg 2", "000012.jpg 3"), "'000012.jpg 3'; expected a file name and 0"),
        (lambda text: text.replace("000012.jpg 2", "000012.jpg"), "expected a file name and 0"),
        (lambda text: text.replace("000012.jpg 2\n", ""), r"lacks images of list_attr_celeba.txt: 1 \(000012.jpg\)"),
        (lambda text: text.replace("000012", "000011"), "has 000011.jpg more than once"),
        (lambda text: text.replace(" 2", " 1"), "has no image in the test split"),
        (lambda text: text.replace(" 0", " 1"), "has no image in the train split"),
        (lambda text: "", "lacks images of list_attr_celeba.txt: 12"),
    ],
)
def test_a_partition_that_is_not_as_published(tmp_path, change, message):
    partition = write(tmp_path) / "list_eval_partition.txt"
    partition.write_text(change(partition.read_text()))
    with pytest.raises(vj.DataError, match=message):
        vj.load("celeba", tmp_path)


def test_a_partition_may_list_more_images(tmp_path):
    partition = write(tmp_path) / "list_eval_partition.txt"
    partition.write_text(partition.read_text() + "000013.jpg 2\n")
    assert as_written(vj.load("celeba", tmp_path))


@pytest.mark.parametrize("missing", ["img_align_celeba.zip", "list_attr_celeba.txt"])
def test_a_missing_file_is_an_error(tmp_path, missing):
    (write(tmp_path) / missing).unlink()
    with pytest.raises(vj.DataError, match=f"lacks {missing}"):
        vj.load("celeba", tmp_path)


def test_without_files_the_error_lists_the_places_and_the_remedies(tmp_path):
    for data_dir, tried in ((tmp_path, "no CelebA files.*no data set prepared"), (None, "no data set prepared")):
        with pytest.raises(vj.DataNotFoundError, match=f"'celeba' was not found. Tried: {tried}") as caught:
            vj.load("celeba", data_dir)
        assert "put img_align_celeba.zip" in str(caught.value)
        assert "IDX" not in str(caught.value)
    with pytest.raises(vj.DataNotFoundError, match="does not exist"):
        vj.load("celeba", tmp_path / "nowhere")


@pytest.fixture
def prepared(tmp_path):
    """The twelve images and attributes, prepared by the `celeb_a` of TFDS."""
    import tensorflow_datasets as tfds

    stock = type(tfds.builder("celeb_a", data_dir=tmp_path))
    with tfds.core.registered.skip_registration():

        class Builder(stock):
            name = "celeb_a"
            pkg_dir_path = stock.pkg_dir_path

            def _split_generators(self, dl_manager):
                return {split: self._generate(number) for number, split in enumerate(("train", "validation", "test"))}

            def _generate(self, split):
                features = self.info.features
                for number in np.flatnonzero(np.array(SPLITS) == split):
                    large = encoded(np.full((218, 178, 3), grey(number), np.uint8))
                    yield (
                        int(number),
                        {
                            "image": io.BytesIO(large),
                            "landmarks": dict.fromkeys(features["landmarks"], 0),
                            "attributes": dict.fromkeys(features["attributes"], False)
                            | {name: bool(value) for name, value in zip(NAMES, VALUES[number], strict=True)},
                            "identity": dict.fromkeys(features["identity"], 0),
                        },
                    )

    skip = tfds.download.ComputeStatsMode.SKIP
    builder = Builder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats=skip))
    return tmp_path


def test_a_data_set_prepared_by_tfds(prepared, monkeypatch):
    dataset = vj.load("celeba", prepared)
    assert dataset.source.startswith("TFDS, celeb_a/2.1.0, the centre 64.2% x 78.7% resized")
    for number, split in enumerate(dataset.splits.values()):
        assert split.event_shape == (64, 64, 3)
        order = [(int(pixel) - 10) // 20 for pixel in split.images[:, 0, 0, 0]]  # TFDS shuffles
        assert sorted(order) == np.flatnonzero(np.array(SPLITS) == number).tolist()
        assert len(split.attributes.names) == 40
        for column, attribute in enumerate(NAMES):
            np.testing.assert_array_equal(split.attributes[attribute], VALUES[order, column])
    with monkeypatch.context() as patch:
        patch.setattr(images, "decode_image", lambda *args, **kwargs: pytest.fail("decoded again"))
        assert digests(vj.load("celeba", prepared)) == digests(dataset)
    next(prepared.glob("celeb_a/*/celeb_a-test*")).write_bytes(b"broken")
    with pytest.raises(vj.DataError, match="cannot be read as images"):
        vj.load("celeba", prepared)


def attributes() -> Attributes:
    return Attributes(NAMES, VALUES)


def test_attributes_by_name_and_by_row():
    np.testing.assert_array_equal(attributes()["Smiling"], VALUES[:, 2])
    assert len(attributes()) == COUNT
    for index in (slice(2, 5), np.array([7, 1]), VALUES[:, 0]):
        np.testing.assert_array_equal(attributes().rows(index).values, VALUES[index])


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("smiling", "did you mean Smiling?"),
        ("Eyeglases", "did you mean Eyeglasses?"),
        ("zzz", "expected one of Male, Eyeglasses"),
    ],
)
def test_the_error_of_an_unknown_attribute_lists_similar_names(asked, hint):
    for ask in (attributes().__getitem__, attributes().require_both):
        with pytest.raises(vj.DataError, match=f"no attribute has the name '{asked}'; {hint[:-1]}"):
            ask(asked)


def test_an_attribute_of_none_or_every_image_is_an_error():
    np.testing.assert_array_equal(attributes().require_both("Male"), VALUES[:, 0])
    with pytest.raises(vj.DataError, match="of 12 images none has the attribute 'Bald'"):
        attributes().require_both("Bald")
    with pytest.raises(vj.DataError, match="every one has the attribute 'Male'"):
        attributes().rows(VALUES[:, 0]).require_both("Male")


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        ((), np.zeros((3, 0), bool), "no attribute has a name"),
        (("a", "a"), np.zeros((3, 2), bool), "'a' more than once"),
        (("a", "b"), np.zeros((3, 3), bool), r"shape \(3, 3\); expected bool \[N, 2\]"),
        (("a",), np.zeros(3, bool), r"shape \(3,\)"),
        (("a", "b"), np.ones((3, 2), np.int64), "int64 .*values > 0"),
    ],
)
def test_attributes_of_another_shape_or_dtype_are_an_error(names, values, message):
    with pytest.raises(vj.DataError, match=message):
        Attributes(names, values)


def test_slices_and_the_digest_of_a_split_include_its_attributes(tmp_path):
    dataset = vj.load("celeba", write(tmp_path))
    half = dataset.train[2:6]
    np.testing.assert_array_equal(half.attributes.values, VALUES[2:6])
    held = dataset.hold_out(3)
    np.testing.assert_array_equal(held.test.attributes.values, VALUES[5:8])
    assert held.validation is None
    bare = vj.Split(dataset.train.images)
    renamed = Attributes(("Female", *NAMES[1:]), dataset.train.attributes.values)
    turned = Attributes(NAMES, ~dataset.train.attributes.values)
    variants = [vj.Split(bare.images, attributes=given) for given in (None, dataset.train.attributes, renamed, turned)]
    assert len({split.digest for split in variants}) == 4
    with pytest.raises(vj.DataError, match="8 images but attributes of 7"):
        vj.Split(bare.images, attributes=dataset.train.attributes.rows(slice(7)))
    with pytest.raises(vj.DataError, match=r"validation images are \(4, 4, 3\)"):
        vj.Dataset("x", bare, bare, "here", vj.Split(np.zeros((2, 4, 4, 3), np.uint8)))
