"""Records and examples, against protobuf."""

import google_crc32c
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from written import Example, masked_crc

from slotlib.data import tfrecord
from slotlib.data.files import DataError


def test_the_checksum_is_crc32c():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value in the catalogue of CRC algorithms
    assert tfrecord.checksum(b"123456789") == masked_crc(b"123456789")


values = st.one_of(
    st.binary(max_size=400).map(lambda b: np.frombuffer(b, dtype=np.uint8)),
    st.lists(st.floats(width=32, allow_nan=False), max_size=40).map(lambda v: np.array(v, dtype=np.float32)),
)


@settings(max_examples=60, deadline=None)
@given(features=st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=5), whole=st.binary(max_size=300))
def test_examples_are_what_protobuf_reads_and_writes(features, whole):
    example = Example.FromString(tfrecord.encode({**features, "whole": whole}))
    for name, value in features.items():
        feature = example.features.feature[name]
        if value.dtype == np.uint8 and name != "whole":
            assert b"".join(feature.bytes_list.value) == value.tobytes()
            assert len(feature.bytes_list.value) == len(value)
        elif name != "whole":
            assert list(feature.float_list.value) == value.tolist()
    assert list(example.features.feature["whole"].bytes_list.value) == [whole]
    decoded = tfrecord.decode(memoryview(example.SerializeToString()), "here")
    assert decoded.pop("whole").tobytes() == whole
    for name, value in features.items():
        if name != "whole" and len(value):
            assert decoded[name].dtype == value.dtype
            np.testing.assert_array_equal(decoded[name], value)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_what_is_no_example_is_an_error_and_not_a_crash(content):
    try:
        tfrecord.decode(memoryview(content), "record 7")
    except DataError as error:
        assert "record 7" in str(error)


def test_strings_of_any_length_and_integers_are_read():
    example = Example()
    example.features.feature["several"].bytes_list.value.extend([b"ab", b"", b"\n\x01c"])
    example.features.feature["number"].int64_list.value.append(-3)
    decoded = tfrecord.decode(memoryview(example.SerializeToString()), "here")
    assert {name: value.tobytes() for name, value in decoded.items()} == {"several": b"ab\n\x01c"}
