"""JSON of ours is read back exactly; what ours never holds is refused, cheaply."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distppo.strict_json import DEEPEST, parse_strictly

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.booleans())
def test_what_json_writes_is_read_back(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert repr(parse_strictly(text)) == repr(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.text(alphabet='{}[],:"0123456789.eE+-\\u dnultrefas', max_size=40).map(str.encode))
def test_anything_is_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_strictly(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e999", "not finite"),
        ('{"a": -1e400}', "not finite"),
        ("9" * 81, "an integer of 81 characters"),
        ("9" * 100_000, "an integer of 100,000 characters"),
        ('{"a": 1, "b": 2, "a": 3}', "a key comes twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "a key comes twice"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested more than 64 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 64 deep"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ('"\\ud800\\ud800"', "surrogate"),
        ("[1,]", "Expecting value"),
        ("", "Expecting value"),
        ("1 2", "Extra data"),
    ],
)
def test_what_no_file_of_ours_holds_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_strictly(text.encode())


def test_the_limits_are_the_last_that_pass() -> None:
    assert parse_strictly(b"9" * 80) == int("9" * 80)
    assert parse_strictly(b"[" * DEEPEST + b"]" * DEEPEST) is not None
    assert parse_strictly(b"[" + b"1," * 8 + b"1]", most_values=10) == [1] * 9
    assert parse_strictly(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("text", ["[" + "[]," * 2_000_000 + "[]]", "[" + "1," * 5_000_000 + "1]", "[" + "{}," * 2_500_000 + "{}]"])
def test_values_are_counted_before_any_is_made(text: str) -> None:
    data = text.encode()
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_strictly(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
