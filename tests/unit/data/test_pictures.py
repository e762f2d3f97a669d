"""Every kind of picture: its colours, its labels, or why it is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from written import picture

from slotlib.data import pictures, read
from slotlib.data.files import DataError

GREY = np.array([[0, 128, 255], [1, 2, 3]], dtype=np.uint8)
DEEP = np.array([[0, 257, 65535], [26001, 26002, 26003]], dtype=np.uint16)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def saved(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(path, width, height, bits, colour_type, rows: bytes, *chunks: bytes):
    """A PNG of the kinds that Pillow reads but does not write; each row begins with a zero."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    content = [header, *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))
    return path


def tiff(path, photometric, bits, content: bytes, width=3):
    """A TIFF of one row of grey."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1), (278, 1)]
    tags.append((279, len(content)))
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + content)
    return path


def grey(values) -> list:
    return [[v, v, v] for v in values]


# --- images ---


@pytest.mark.parametrize("ending", ["png", "gif", "tif", "bmp"])
def test_a_palette_gives_colours_to_an_image_and_indices_to_a_mask(tmp_path, ending):
    image = Image.fromarray(GREY % 4)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 756)
    path = saved(tmp_path / f"p.{ending}", image)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(pictures.image_of(path), palette[GREY % 4])
    np.testing.assert_array_equal(pictures.mask_of(path), GREY % 4)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_in_an_image_and_kept_in_a_mask(tmp_path, ending):
    pixels = DEEP.astype(np.int32) if ending == "pgm" else DEEP
    path = saved(tmp_path / f"d.{ending}", pixels)
    expected = np.round(DEEP / 257).astype(np.uint8)
    np.testing.assert_array_equal(pictures.image_of(path), np.stack([expected] * 3, axis=2))
    np.testing.assert_array_equal(pictures.mask_of(path), DEEP)


def test_bits_and_white_are_what_the_header_says(tmp_path):
    path = tmp_path / "x.tif"
    deep = struct.pack("<3H", 0, 256, 65535)
    assert pictures.image_of(tiff(path, 1, 16, deep)).tolist() == [grey([0, 1, 255])]
    assert pictures.image_of(tiff(path, 0, 16, deep)).tolist() == [grey([255, 254, 0])]  # white is zero
    assert pictures.image_of(tiff(path, 0, 8, bytes([0, 1, 255]))).tolist() == [grey([255, 254, 0])]
    twelve = bytes([0xFF, 0xF0, 0x00, 0x80, 0x00])
    assert pictures.image_of(tiff(path, 1, 12, twelve)).tolist() == [grey([255, 0, 128])]
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023))
    assert pictures.image_of(tmp_path / "x.pgm").tolist() == [grey([0, 128, 255])]
    assert pictures.image_of(png(tmp_path / "x.png", 2, 1, 4, 0, b"\0\xf7")).tolist() == [grey([255, 119])]
    colour = b"\0" + struct.pack(">3H", 65535, 256, 255)
    assert pictures.image_of(png(tmp_path / "x.png", 1, 1, 16, 2, colour)).tolist() == [[[255, 1, 0]]]
    with pytest.raises(DataError, match="colours of 16 bits, of which 8 are lost"):
        pictures.mask_of(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("1", "png"), ("L", "png"), ("CMYK", "tif"), ("CMYK", "jpg"), ("YCbCr", "tif"), ("RGBX", "tif")],
)
def test_an_image_is_what_was_saved_in_any_mode(tmp_path, mode, ending):
    flat = Image.new("RGB", (16, 16), (255, 255, 255) if mode == "1" else (200, 100, 50))
    seen = pictures.image_of(saved(tmp_path / f"m.{ending}", flat, mode)).astype(int)
    expected = {"1": 255, "L": 124}.get(mode, np.array([200, 100, 50]))
    assert np.abs(seen - expected).max() <= 1  # JPEG and YCbCr round


def test_what_is_transparent_is_black(tmp_path):
    pixels = np.array([[[255, 255, 255, 0], [200, 100, 50, 128], [200, 100, 50, 255]]], dtype=np.uint8)
    on_black = [[[0, 0, 0], [100, 50, 25], [200, 100, 50]]]
    for ending in ("png", "tif"):
        path = saved(tmp_path / f"a.{ending}", pixels)
        assert np.abs(pictures.image_of(path).astype(int) - on_black).max() <= 1
    lit = saved(tmp_path / "la.png", Image.merge("LA", [Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0)]))
    assert pictures.image_of(lit).tolist() == [grey([0, 0])]
    image = Image.fromarray(GREY % 4)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])
    for ending in ("png", "gif"):
        path = saved(tmp_path / f"t.{ending}", image, transparency=0)
        assert not pictures.image_of(path)[GREY % 4 == 0].any()
        assert pictures.image_of(path)[0, 2].tolist() == [255, 255, 255]
    red, white = struct.pack(">3H", 255, 0, 0), struct.pack(">H", 255)
    path = png(tmp_path / "k.png", 2, 1, 8, 2, b"\0\xff\0\0\0\xff\0", chunk(b"tRNS", red))
    assert pictures.image_of(path).tolist() == [[[0, 0, 0], [0, 255, 0]]]
    path = png(tmp_path / "k.png", 2, 1, 8, 0, b"\0\xff\x07", chunk(b"tRNS", white))
    assert pictures.image_of(path).tolist() == [grey([0, 7])]
    path = png(tmp_path / "k.png", 2, 1, 16, 0, b"\0\xff\xff\x07\x07", chunk(b"tRNS", b"\xff\xff"))
    assert pictures.image_of(path).tolist() == [grey([0, 7])]
    path = png(tmp_path / "k.png", 1, 1, 16, 2, b"\0" + bytes(6), chunk(b"tRNS", bytes(6)))
    with pytest.raises(DataError, match="16 bits of which one is transparent"):
        pictures.image_of(path)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 3), np.float32), "floating point"),
        (np.zeros((2, 3), np.int32), "integers of 32 bits"),
        (Image.new("LAB", (3, 2)), "LAB"),
    ],
)
def test_what_has_no_white_is_refused_by_name(tmp_path, pixels, message):
    path = saved(tmp_path / "x.tif", pixels)
    with pytest.raises(DataError, match=rf"x\.tif has pixels of {message}.*; save it as RGB or grey of 8 or 16 bits"):
        pictures.image_of(path)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_and_masks_are_turned_as_exif_says(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"e.{ending}", COLOURS, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    turned = np.rot90(COLOURS, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    np.testing.assert_array_equal(pictures.image_of(path), turned)
    np.testing.assert_array_equal(pictures.mask_of(path), turned)
    assert pictures.size_of(path) == turned.shape[:2]
    labels = saved(tmp_path / "l.png", GREY, exif=exif)
    np.testing.assert_array_equal(pictures.mask_of(labels), np.rot90(GREY, {1: 0, 3: 2, 6: -1, 8: 1}[orientation]))


# --- masks ---


def test_instance_numbers_of_sixteen_bits_stay_apart(tmp_path):
    picture(tmp_path / "images" / "a.png", np.zeros((2, 3, 3)))
    (tmp_path / "masks").mkdir()
    saved(tmp_path / "masks" / "a.png", DEEP)
    scene = read(tmp_path)[0]
    assert scene["mask"].tolist() == [[0, 1, 5], [2, 3, 4]]
    assert scene["objects"]["present"].sum() == 5


def test_more_objects_than_a_mask_can_hold_are_refused(tmp_path):
    picture(tmp_path / "images" / "a.png", np.zeros((16, 17, 3)))
    (tmp_path / "masks").mkdir()
    saved(tmp_path / "masks" / "a.png", np.arange(272, dtype=np.uint16).reshape(16, 17) % 256)
    assert read(tmp_path, max_objects=255)[0]["mask"].max() == 255
    saved(tmp_path / "masks" / "a.png", np.arange(272, dtype=np.uint16).reshape(16, 17))
    with pytest.raises(DataError, match="271 objects, more than max_objects=255"):
        read(tmp_path, max_objects=255)[0]
    with pytest.raises(ValueError, match="max_objects must be at most 255, got 256"):
        read(tmp_path, max_objects=256)


# --- damage ---


def test_no_flipped_bit_makes_another_picture(tmp_path):
    pixels = np.zeros((12, 12, 3), dtype=np.uint8)
    pixels[3:6, 2:7] = np.random.default_rng(0).integers(0, 256, (3, 5, 3))
    whole = saved(tmp_path / "a.png", pixels).read_bytes()
    noticed = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "b.png").write_bytes(damaged)
        try:
            pictures.image_of(tmp_path / "b.png")
        except DataError:
            noticed += 1
    assert noticed == 8 * len(whole)


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    for name, text in (
        ("a.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
        ("b.png", "#define a_width 1\n#define a_height 1\nstatic char a_bits[] = {1};\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name} cannot be read \(UnidentifiedImageError"):
            pictures.image_of(tmp_path / name)


def test_hidden_files_are_no_pictures(tmp_path):
    picture(tmp_path / "a.png", np.full((2, 3, 3), 7))
    (tmp_path / "._a.png").write_bytes(b"\0\5\26\7Mac OS X")
    assert len(read(tmp_path)) == 1
    assert (read(tmp_path)[0]["image"] * 255 == 7).all()
