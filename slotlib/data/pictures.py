"""Pictures from files: the one place where image files are opened, and what their pixels are.

An image is RGB with eight bits a value, as a viewer shows it on black:

- Palettes are looked up; CMYK, YCbCr and HSV are converted. Of several frames the first is taken.
- 16 bits of grey are scaled to 8 and rounded. Of 16 bits of colour Pillow keeps the upper 8.
- Alpha is laid over black: what is transparent is black, whatever colour hides there.
- The orientation in EXIF is applied.

A mask keeps its numbers. Grey values of 1 to 32 bits, and the indices of a palette, are labels; anything with colours
or alpha is colours, as above. A mask is turned by its own EXIF, as an image is.

Refused by name: floating point (nothing says which value is white), integers of 32 bits as an image, LAB; 16 bits of
colour as a mask, where the lost bits may tell objects apart. PNG files are compared with the checksums in them, which
decoders skip.
"""

import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageFile, ImageOps

from slotlib.data.files import TABLE, DataError, guarded, within

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # Pillow knows others, some of which start programs
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF


def files_in(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name. Hidden ones (macOS leaves `._NAME.png`) are none."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file, of a size that can be and, as far as that can be seen, intact."""
    if not path.is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    with guarded(f"image {path} cannot be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `within` is as strict
        with Image.open(path, formats=_FORMATS) as image:
            within((image.height, image.width, 3), 1, f"image {path}")
            if image.format == "PNG":
                within((path.stat().st_size,), 1, f"image {path}", TABLE)
                _compare(path.read_bytes())
            yield image


def _compare(content: bytes) -> None:
    """Raises ValueError for a PNG of which a part differs from its checksum, struct.error for one that ends early."""
    at, name, whole = 8, b"", memoryview(content)
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if struct.unpack_from(">I", content, end) != (zlib.crc32(whole[at + 4 : end]),):
            raise ValueError(f"the checksum of {name!r} is wrong")
        at = end + 4


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image, as it is turned. Raises as `image_of` does, if the header is damaged."""
    with _opened(path) as image:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image.height, image.width
    height, width, _ = image_of(path).shape  # Pillow turns some formats when it opens them, others later
    return height, width


def first_size(images: Iterable[Path], on_error: str) -> tuple[int, int] | None:
    """The size of the first image; with on_error="skip" of the first whose header can be read, None without one."""
    for image in images:
        try:
            return size_of(image)
        except (DataError, OSError):
            if on_error == "raise":
                raise
    return None


def image_of(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of an image file. Raises FileNotFoundError, DataError for a damaged file or one that is refused."""
    with _opened(path) as image:
        return np.asarray(_coloured(image, path))


def mask_of(path: Path) -> Integer[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 3"]:
    """The labels or colours of a mask file. Raises as `image_of` does."""
    with _opened(path) as image:
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            ImageOps.exif_transpose(image, in_place=True)
            labels = np.asarray(image)
            return labels.astype(np.uint8) if labels.dtype == bool else labels
        if ";16" in str(image.tile):
            raise DataError(f"mask {path} has colours of 16 bits, of which 8 are lost; save it with 8, or as labels")
        return np.asarray(_coloured(image, path))


def _coloured(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """An opened file as RGB, turned."""
    mode, hidden, deep = image.mode, image.info.get("transparency"), ";16" in str(image.tile)
    ImageOps.exif_transpose(image, in_place=True)
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):  # Pillow 10 opens 16 bits as I
        return Image.fromarray(_eight_bits(np.asarray(image), image, hidden)).convert("RGB")
    if mode in ("F", "I", "LAB"):
        kind = {"F": "floating point", "I": "integers of 32 bits, or with a sign", "LAB": "LAB"}[mode]
        raise DataError(
            f"image {path} has pixels of {kind} (Pillow's mode {mode}); save it as RGB or grey of 8 or 16 bits"
        )
    if deep and hidden is not None:
        raise DataError(
            f"image {path} has colours of 16 bits of which one is transparent; save it with 8, or with alpha"
        )
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or hidden is not None:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(
    values: Integer[np.ndarray, "height width"], image: Image.Image, hidden: int | None
) -> UInt8[np.ndarray, "height width"]:
    """Grey of 16 bits, or of 12 in TIFF, rounded to 8. A value that stands for transparent is black."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS, (16,))[0] - 1
    grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds for 8 bits only
        grey = 255 - grey
    return grey if hidden is None else np.where(values == hidden, 0, grey).astype(np.uint8)
