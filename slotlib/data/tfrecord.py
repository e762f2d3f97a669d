"""TFRecords without TensorFlow: the frames of the file, and the `tf.train.Example` inside each.

A record is its length, the length's checksum, the content and the content's checksum. The content is a protocol buffer:
a map from feature names to a list of byte strings, floats or integers. The Multi-Object Datasets store images as one
byte string *per value*, so that a CLEVR scene has a million of them; here they are one NumPy view.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from slotlib.data.files import DataError, optional, within

HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_BYTES, _FLOATS = 1, 2  # numbers of the fields of tf.train.Feature
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers

Feature = UInt8[np.ndarray, "..."] | Float32[np.ndarray, "..."]


def checksum(content: bytes) -> int:
    """TFRecord's masked CRC-32C."""
    crc = optional("google_crc32c").value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(content: bytes) -> bytes:
    """A record as it stands in the file."""
    header = struct.pack("<Q", len(content))
    return header + _FOOTER.pack(checksum(header)) + content + _FOOTER.pack(checksum(content))


def frames(file: Any, where: str) -> Iterator[bytes]:
    """The records of an open file from where it stands, each with its checksum at the end (see `content`).

    Raises DataError, after the last whole record, if the file ends within a record or a record's length is damaged
    (where the next one starts is then unknown), or beyond what one record may take.
    """
    number = 0
    while True:
        try:
            header = file.read(HEADER.size)
            if not header:
                return
            if len(header) == HEADER.size:
                length, expected = HEADER.unpack(header)
                if checksum(header[:8]) != expected:
                    what = "is not a TFRecords file" if number == 0 else "is damaged from there on"
                    raise DataError(f"{where}, record {number}: the checksum of its length is wrong; the file {what}")
                within((length,), 1, f"{where}, record {number}")
                body = file.read(length + _FOOTER.size)
                if len(body) == length + _FOOTER.size:
                    yield body
                    number += 1
                    continue
            reason = "the file ends in the middle of the record"
        except (OSError, EOFError, ValueError, zlib.error) as error:  # what gzip and indexed_gzip raise
            if isinstance(error, DataError):
                raise
            reason = str(error)
        raise DataError(f"{where}, record {number}: truncated or damaged gzip data ({reason})")


def content(body: bytes, where: str) -> memoryview:
    """The record within what `frames` yields. Raises DataError if it is not what was written."""
    record, (expected,) = body[: -_FOOTER.size], _FOOTER.unpack(body[-_FOOTER.size :])
    if checksum(record) != expected:
        raise DataError(f"{where}: the checksum (CRC-32C) of its content is wrong; the record is damaged")
    return memoryview(record)


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, content) of every field of a message that is not an integer."""
    at = 0
    while at < len(buffer):
        tag, at = _varint(buffer, at)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(buffer, at)
            continue
        if wire == _DELIMITED:
            length, at = _varint(buffer, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at + length > len(buffer):
            raise IndexError("a field is longer than its message")
        yield tag >> 3, buffer[at : at + length]
        at += length


def _value(feature: memoryview) -> Feature | None:
    for kind, values in _fields(feature):
        if kind == _FLOATS:
            return np.frombuffer(_joined(values), dtype="<f4")
        if kind == _BYTES:
            # Strings of one byte are tag, 1, byte: every third byte is a value. Anything else is one string or several.
            triples = np.frombuffer(values, dtype=np.uint8)
            if triples.size % 3 == 0:
                triples = triples.reshape(-1, 3)
                if (triples[:, 0] == (1 << 3 | _DELIMITED)).all() and (triples[:, 1] == 1).all():
                    return triples[:, 2]
            return np.frombuffer(_joined(values), dtype=np.uint8)
    return None


def _joined(values: memoryview) -> bytearray:
    """The strings of a list as one. `join` would keep an object of each, and there may be millions."""
    joined = bytearray()
    for _, chunk in _fields(values):
        joined += chunk
    return joined


def decode(example: memoryview, where: str, wanted: str | None = None) -> dict[str, Feature]:
    """A `tf.train.Example` as arrays by feature name: byte strings joined (uint8), floats float32; no integers.

    Args:
        example: the message.
        where: names the record in errors.
        wanted: decode only the feature of this name.

    Raises DataError for what is not such a message.
    """
    features: dict[str, Feature] = {}
    try:
        for _, entries in _fields(example):
            for _, entry in _fields(entries):
                parts = dict(_fields(entry))
                name = bytes(parts.get(1, b"")).decode()
                if wanted in (None, name) and (value := _value(parts.get(2, memoryview(b"")))) is not None:
                    features[name] = value
    except (IndexError, ValueError) as error:
        raise DataError(f"{where}: not a tf.train.Example ({error})") from None
    return features


def _length(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _delimited(number: int, message: bytes) -> bytes:
    return bytes([number << 3 | _DELIMITED]) + _length(len(message)) + message


def _list(value: Feature | bytes) -> bytes:
    if isinstance(value, bytes):
        return _delimited(_BYTES, _delimited(1, value))
    if value.dtype == np.uint8:
        triples = np.empty((value.size, 3), dtype=np.uint8)
        triples[:] = (1 << 3 | _DELIMITED, 1, 0)
        triples[:, 2] = value.ravel()
        return _delimited(_BYTES, triples.tobytes())
    return _delimited(_FLOATS, _delimited(1, value.astype("<f4").tobytes()))


def encode(features: Mapping[str, Feature | bytes]) -> bytes:
    """A `tf.train.Example`: bytes become one string, uint8 arrays one string per value, others floats."""
    entries = [_delimited(1, name.encode()) + _delimited(2, _list(value)) for name, value in features.items()]
    return _delimited(1, b"".join(_delimited(1, entry) for entry in entries))
