"""NumPy archives: opened as zip files, since `np.load` would unpickle what is not one, and never beyond their size."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from slotlib.data.files import TABLE, DataError, within


def header(member: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of an array. Raises DataError for anything but numbers and words."""
    if np.lib.format.read_magic(member) != (1, 0):  # the others are for lists of fields
        raise DataError(f"{where} is no array of numbers")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype.kind not in "biufU":
        raise DataError(f"{where} is no array of numbers, but of {dtype}")
    return shape, fortran, dtype


def arrays(archive: zipfile.ZipFile, names: Iterable[str], path: Path) -> dict[str, np.ndarray]:
    """The arrays of these names, `NAME.npy` in the archive.

    Raises DataError if they take more than `TABLE` bytes, or declare more than is there; and what zipfile and NumPy
    raise for damaged files.
    """
    infos = {name: archive.getinfo(f"{name}.npy") for name in names}
    within((sum(info.file_size for info in infos.values()),), 1, str(path), TABLE)
    found = {}
    for name, info in infos.items():
        where = f"{path}, {name}"
        with archive.open(info) as member:
            shape, _, dtype = header(member, where)
            within(shape, dtype.itemsize, where, info.file_size)
            if min(shape, default=0) < 0:
                raise DataError(f"{where} declares {list(shape)} values")
            member.seek(0)
            found[name] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def names_in(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]
