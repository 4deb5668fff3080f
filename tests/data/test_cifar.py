import io
import tarfile

import numpy as np
import pytest
from conftest import cifar_bytes

import vae_jax as vj
from vae_jax.data import load_or_stand_in
from vae_jax.data.cifar import ARCHIVE, CLASSES, FOLDER, TEST, TRAIN
from vae_jax.data.synthetic.faces import load_faces
from vae_jax.errors import DataError, DataNotFoundError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


CONTENTS = {
    name: cifar_bytes(IMAGES[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2]) for i, name in enumerate((*TRAIN, TEST))
}


def write_files(folder, contents=CONTENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def assert_is_whole(data):
    np.testing.assert_array_equal(data.train.images, IMAGES[:10])
    np.testing.assert_array_equal(data.train.labels, LABELS[:10])
    np.testing.assert_array_equal(data.test.images, IMAGES[10:])
    np.testing.assert_array_equal(data.test.labels, LABELS[10:])
    assert data.class_names == CLASSES


@pytest.mark.parametrize("where", [".", FOLDER, "cifar10", f"cifar10/{FOLDER}"])
def test_binary_files_are_read_and_cached(tmp_path, where):
    write_files(tmp_path / where)
    first = vj.load("cifar10", tmp_path)
    assert_is_whole(first)
    assert "binary files" in first.source
    again = vj.load("cifar10", tmp_path)
    assert_is_whole(again)
    assert isinstance(again.train.images, np.memmap)


@pytest.mark.parametrize("prefix", [f"{FOLDER}/", f"./{FOLDER}/", ""])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_the_archive_is_read_in_memory(tmp_path, prefix, mode):
    others = {f"{prefix}readme.html": b"text", f"{prefix}batches.meta.txt": b"names", f"other/{TEST}": b"?"}
    write_archive(tmp_path / ARCHIVE, {f"{prefix}{name}": of for name, of in CONTENTS.items()} | others, mode)
    data = vj.load("cifar10", tmp_path)
    assert_is_whole(data)
    assert data.source == f"CIFAR-10's binary archive {ARCHIVE}, by its MD5 not the published one"
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]


def test_unpacked_files_come_before_the_archive(tmp_path):
    write_files(tmp_path / FOLDER)
    (tmp_path / ARCHIVE).write_bytes(b"damaged")
    assert_is_whole(vj.load("cifar10", tmp_path))


BAD_FILES = {
    "a byte is missing": ({TRAIN[0]: CONTENTS[TRAIN[0]][:-1]}, "has 6,145 bytes; expected a multiple of 3,073"),
    "an empty file": ({TEST: b""}, f"{TEST} has 0 bytes; expected a multiple of 3,073"),
    "a label above 9": (
        {TRAIN[4]: cifar_bytes(IMAGES[:1], [10])},
        f"{TRAIN[4]} has the label 10; expected labels from 0 to 9",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named(tmp_path, case):
    changed, message = BAD_FILES[case]
    write_files(tmp_path, CONTENTS | changed)
    with pytest.raises(DataError, match=message):
        vj.load("cifar10", tmp_path)


def test_four_of_five_batches(tmp_path):
    write_files(tmp_path / FOLDER, {name: of for name, of in CONTENTS.items() if name != TRAIN[2]})
    with pytest.raises(DataError, match=f"lacks {TRAIN[2]}; add it"):
        vj.load("cifar10", tmp_path)


MEMBERS = {f"{FOLDER}/{name}": content for name, content in CONTENTS.items()}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (MEMBERS | {"../outside.bin": b"x"}, r"has the member \.\./outside\.bin, which is outside of its folder"),
        (MEMBERS | {"/etc/outside": b"x"}, "has the member /etc/outside, which is outside of its folder"),
        ({f"{FOLDER}/{name}": CONTENTS[name] for name in TRAIN}, f"lacks {TEST}; download it again"),
        (MEMBERS | {f"{FOLDER}/{TEST}": b"\0" * 10}, f"{TEST} in .*{ARCHIVE} has 10 bytes"),
    ],
)
def test_a_bad_archive_is_refused(tmp_path, members, message):
    write_archive(tmp_path / ARCHIVE, members)
    with pytest.raises(DataError, match=message):
        vj.load("cifar10", tmp_path)


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(CONTENTS[TEST])
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        link = tarfile.TarInfo(f"{FOLDER}/{TEST}")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    with pytest.raises(DataError, match=f"{TEST} is a link or a folder, or has more than 1 GiB; expected a file"):
        vj.load("cifar10", tmp_path)


def test_a_member_of_a_gibibyte_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.data.cifar._LARGEST", len(CONTENTS[TEST]) - 1)
    write_archive(tmp_path / ARCHIVE, MEMBERS)
    with pytest.raises(DataError, match=r"is a link or a folder, or has more than 6 KiB"):
        vj.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:40] + b"\xff" * 40 + b[80:], lambda b: b"no"]
)
def test_a_damaged_archive(tmp_path, damage):
    write_archive(tmp_path / ARCHIVE, MEMBERS)
    path = tmp_path / ARCHIVE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="is damaged, or not a tar archive"):
        vj.load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_pickles_are_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataNotFoundError, match=f"pickle files can run any code; expected .*: put {ARCHIVE}"):
        vj.load("cifar10", tmp_path)


def test_no_files_at_all(tmp_path):
    with pytest.raises(
        DataNotFoundError, match=rf"no CIFAR-10 files.*Two ways to supply it: put {FOLDER}/ or {ARCHIVE}"
    ):
        vj.load("cifar10", tmp_path)


def test_the_stand_in_is_the_faces_at_half_their_size(monkeypatch):
    few = load_faces(3, 2, 2)
    monkeypatch.setattr("vae_jax.data.synthetic.faces.load", lambda: few)
    data, sentence = load_or_stand_in("cifar10")
    assert "Using synthetic faces of 32 x 32 pixels instead" in sentence
    assert data.name == "faces32"
    assert data.train.event_shape == (32, 32, 3)
    means = few.train.images.reshape(3, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(data.train.images, np.floor(means + 0.5))
    np.testing.assert_array_equal(data.test.attributes.values, few.test.attributes.values)
