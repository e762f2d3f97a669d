"""Files made to do harm, and files damaged at random: one clear line, soon, before anything large is allocated."""

import gzip
import json
import random
import resource
import shutil
import struct
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from written import picture, published, serialised, write_hdf5, write_records, write_sprites

from slotlib.data import make, read, tfrecord
from slotlib.data.export import export
from slotlib.data.files import DataError

# --- what is larger than it looks ---


def png(path) -> None:
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(160_000_000))), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks]
    path.mkdir()
    (path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def record(length: int, zipped: bool):
    def write(path) -> None:
        header = struct.pack("<Q", length)
        with (gzip.open if zipped else open)(path, "wb") as file:
            file.write(header + struct.pack("<I", tfrecord.checksum(header)) + bytes(10_000_000 if zipped else 100))

    return write


def hdf5(count: int, side: int, chunk: int = 1, own: bool = False, **others):
    def write(path) -> None:
        with h5py.File(path, "w") as file:
            for name, channels in (("image", 3), ("mask", 1)):
                chunks = (chunk, min(side, 500), min(side, 500), channels)
                file.create_dataset(name, (count, side, side, channels), "u1", chunks=chunks, compression="gzip")
            for name, (shape, dtype) in others.items():
                file.create_dataset(name, shape, dtype, chunks=(10, 1)[: len(shape)])
            if own:
                file.attrs["slotlib"] = "{}"
                file.create_dataset("slotlib.present", (count, 5), "?", chunks=(1000, 5))

    return write


def declared(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str, size: int) -> None:
    """An array of this shape, of which `size` bytes are there."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
        for _ in range(size // 10**6):
            member.write(bytes(10**6))


def properties(shape: tuple[int, ...], size: int):
    def write(path) -> None:
        picture(path / "a.png", np.zeros((4, 4, 3)))
        with zipfile.ZipFile(path / "objects.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            declared(archive, "objects.present", shape, "|b1", size)

    return write


def sprites(path) -> None:
    write_sprites(path)
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(f"{name}.npy") for name in ("latents_values", "latents_classes")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(f"{name}.npy", part)
        declared(archive, "imgs", (720, 2173, 2173), "|u1", 10**6)


def scenes(text: str):
    def write(path) -> None:
        picture(path / "images" / "train" / "a.png", np.zeros((4, 4, 3)))
        (path / "scenes").mkdir()
        (path / "scenes" / "CLEVR_train_scenes.json").write_text(text)

    return write


def nested(path) -> None:
    path.write_bytes(tfrecord.frame(tfrecord.encode({"slotlib": b"[" * 5000, "image": b"abc", "mask": b"a"})))


ROOM = json.dumps({"info": {"slotlib": {"max_objects": 10**9}}, "scenes": [{"image_filename": "a.png", "objects": []}]})
VISIBLE = {"visibility": ((10, 5), "f4")}


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("png", png, r"a\.png: 13000×13000×3 values declared, 507,000,000 bytes; at most 268,435,456 are read"),
        ("a.tfrecords", record(3 * 10**9, True), "record 0: 3000000000 values declared"),
        ("a.tfrecords", record(2**40, True), "record 0: 1099511627776 values declared"),
        ("a.tfrecords", record(2**63, False), "record 0: 9223372036854775808 values declared"),
        ("a.tfrecords", nested, "record 0 cannot be read .RecursionError"),
        ("a.h5", hdf5(1, 60_000, **VISIBLE), "'image': 60000×60000×3 values declared"),
        ("a.h5", hdf5(10_000, 500, 1000, **VISIBLE), "'image': 1000×500×500×3 values declared"),
        ("a.h5", hdf5(10**9, 8, visibility=((10**9, 5), "f4")), "visibility: 5000000000 values declared"),
        ("a.h5", hdf5(10**9, 8, num_actual_objects=((10**9,), "u1")), "num_actual_objects: 1000000000 values declared"),
        ("a.h5", hdf5(10**9, 8, own=True), r"slotlib\.present: 5000000000 values declared"),
        ("folder", properties((1, 6 * 10**8), 6 * 10**8), r"objects\.npz: 600000128 values declared"),
        ("folder", properties((1, 10**15), 10**6), r"objects\.present: 1×1000000000000000 values declared"),
        ("a.npz", sprites, "imgs: 720×2173×2173 values declared"),
        ("clevr", scenes('{"info": ' + "[" * 5000), "not a CLEVR scenes file .RecursionError"),
        ("clevr", scenes(ROOM), "expected at most 255 objects in a scene, got 1000000000"),
    ],
)
def test_what_is_larger_than_it_looks_is_refused_at_once(tmp_path, name, write, message):
    write(tmp_path / name)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / name)[0]
    assert time.perf_counter() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    assert "\n" not in str(error.value)


# --- what leads out of the file ---


def external(file, secret) -> None:
    file.create_dataset("image", (6, 8, 10, 3), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def external_link(file, secret) -> None:
    with h5py.File(secret.with_name("other.hdf5"), "w") as other:
        other["image"] = np.zeros((6, 8, 10, 3), np.uint8)
    file["image"] = h5py.ExternalLink(str(secret.with_name("other.hdf5")), "image")


def soft_link(file, secret) -> None:
    file["pixels"] = np.zeros((6, 8, 10, 3), np.uint8)
    file["image"] = h5py.SoftLink("/pixels")


def virtual(file, secret) -> None:
    layout = h5py.VirtualLayout((6, 8, 10, 3), "u1")
    layout[:] = h5py.VirtualSource(str(secret.with_name("other.hdf5")), "image", (6, 8, 10, 3))
    file.create_virtual_dataset("image", layout)


@pytest.mark.parametrize("lead", [external, external_link, soft_link, virtual])
def test_hdf5_brings_in_no_other_file(tmp_path, lead):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(240)) * 6)
    write_hdf5(tmp_path / "a.hdf5", image=None)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        lead(file, secret)
    with pytest.raises(DataError, match=r"a\.hdf5: 'image' (is a link|lies in other files); expected the data itself"):
        read(tmp_path / "a.hdf5")


def test_what_else_is_in_a_file_does_not_matter(tmp_path):
    write_hdf5(tmp_path / "a.hdf5", names=np.array([b"a"] * 6), depth=np.zeros((6, 8, 10), np.float32))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file.create_group("more")["x"] = 1
    assert set(read(tmp_path / "a.hdf5")[0]["objects"]) == {"present", "colour", "shape"}


# --- what is damaged ---


def damaged(content: bytes, dice: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8])):
        found[dice.randrange(len(found))] = dice.randrange(256)
    return bytes(found)


def attempt(path) -> None:
    """Reads all scenes, or is refused."""
    try:
        dataset = read(path)
        dataset.batch(range(len(dataset)))
    except DataError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


@pytest.mark.parametrize("format", ["tfrecord", "hdf5", "folder", "sprites", "published"])
def test_any_damage_is_one_clear_error(tmp_path, format):
    dice, whole = random.Random(0), tmp_path / {"hdf5": "w.hdf5", "sprites": "w.npz"}.get(format, "w")
    if format == "sprites":
        write_sprites(whole)
    elif format == "published":
        write_hdf5(whole := tmp_path / "w.hdf5")
    else:
        export(make("tetrominoes", 2), whole, format)
    for k in range(60):
        path = whole.with_stem(f"{k}")  # a new name each: HDF5 knows open files again
        if format == "folder":
            shutil.copytree(whole, path)
            file = path / "objects.npz"
        else:
            file = path
        file.write_bytes(damaged((whole / "objects.npz" if format == "folder" else whole).read_bytes(), dice))
        attempt(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged tags
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_any_damage_to_a_picture_is_one_clear_error(tmp_path, ending):
    dice, path = random.Random(0), tmp_path / f"a.{ending}"
    picture(path, np.random.default_rng(0).integers(0, 256, (9, 14, 3)))
    whole = path.read_bytes()
    for _ in range(60):
        path.write_bytes(damaged(whole, dice))
        attempt(tmp_path)


JUNK = [None, -1, 1.5, float("nan"), 10**30, "O", "<M8[ns]", [], [1e9, 1e9], [-5, -7], {"a": 1}, "../../etc/passwd"]


def places(value, at=()):
    """Every place in a JSON value."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*at, key))


def replaced(value, at: tuple, junk):
    if not at:
        return junk
    copied = value.copy()
    copied[at[0]] = replaced(value[at[0]], at[1:], junk)
    return copied


def test_any_nonsense_with_a_right_checksum_is_one_clear_error(tmp_path):
    dice, path = random.Random(0), tmp_path / "a.tfrecords"
    export(make("tetrominoes", 1), path, "tfrecord")
    example = gzip.decompress(path.read_bytes())[12:-4]
    features = {name: value.tobytes() for name, value in tfrecord.decode(memoryview(example), "").items()}
    header = json.loads(features["slotlib"])
    for at in places(header):
        for junk in dice.sample(JUNK, 2):
            features["slotlib"] = json.dumps(replaced(header, at, junk)).encode()
            write_records(path, [tfrecord.encode(features)], zipped=False)
            attempt(path)
    for k in range(60):
        write_records(path, [damaged(example if k % 2 else example[:400], dice)], zipped=False)
        attempt(path)


@pytest.mark.parametrize("name", ["image", "mask", "visibility", "shape", "color"])
def test_features_of_another_kind_are_one_clear_error(tmp_path, name):
    features, _ = published("tetrominoes", 0)
    for value in (np.zeros(5, np.float32), np.full(features[name].size, np.nan, np.float32), np.zeros(700, np.uint8)):
        write_records(tmp_path / "a", [serialised({**features, name: value})], zipped=False)
        attempt(tmp_path / "a")
    write_records(tmp_path / "a", [serialised({**features, "shape": np.full(4, np.nan, np.float32)})], zipped=False)
    with pytest.raises(DataError, match="record 0: expected shape as whole numbers, got nan"):
        read(tmp_path / "a")
    write_records(tmp_path / "a", [serialised({**features, "image": features["image"].astype(np.float32)})])
    with pytest.raises(DataError, match="record 0: expected image and mask as bytes, got float32 and uint8"):
        read(tmp_path / "a")


def test_any_nonsense_in_clevr_scenes_is_one_clear_error(tmp_path):
    dice, path = random.Random(0), tmp_path / "c"
    export(make("clevr", 2, resolution=16, num_objects=3), path, "folder")
    file = path / "scenes" / "CLEVR_train_scenes.json"
    content = json.loads(file.read_text())
    for scene in content["scenes"]:
        del scene["relationships"]
    for at in places(content):
        for junk in dice.sample(JUNK, 1):
            file.write_text(json.dumps(replaced(content, at, junk)))
            try:
                attempt(path)
            except FileNotFoundError as error:
                assert "there is no" in str(error)
