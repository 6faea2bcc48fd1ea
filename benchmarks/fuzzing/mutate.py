"""Valid text and JSON, changed a little: the structure mostly stands, so that what is wrong gets deep into a reader."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

NASTY_TOKENS = [
    *(b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b"\x1b[2J", b"\xe2\x80\xae", b"\xf0\x9f\x98\x80"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1e999", b"1e308", b"5e-324", b"-0", b"00", b"0x10", b"1_000", b".inf"),
    *(b"9" * 30, b"9" * 5000, b"9223372036854775808", b"18446744073709551616", b"-1", b"1e400000000", b"1" + b"0" * 400),
    *(b"[" * 40, b"[" * 5000, b"{" * 40, b'{"a":' * 3000, b"]" * 40, b"[[[[1]]]]", b"[]", b"{}", b"[1,2", b'"\\ud800"', b'"\\u0000"'),
    *(
        b'"',
        b"'",
        b"\\",
        b":",
        b",",
        b": ",
        b"- ",
        b"# ",
        b"? ",
        b"| ",
        b">-",
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!python/object/apply:os.system [x]",
    ),
    *(b"!tag ", b"---\n", b"...\n", b"%YAML 9.9\n---\n", b"%TAG ! x\n", b"../../x", b"/etc/passwd", b"~/.bashrc", b"os:system", b"x" * 70),
]
NASTY_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**79, 0.5, -0.0, 1e308, 5e-324, 1e18),
    *("", "x", "../x", "/etc/passwd", "a\0b", "\x1b[2J", "os:system", "theirs:Env-v0", "NaN", "Infinity", "x" * 5000, "\u202e", "1e5"),
    *([], {}, [[]], [{}], {"": {}}, [None] * 3, [0] * 100, [2**62, 4], [-1], [0, 2**62], {"a": [1, {"b": None}]}),
]


class Raw(str):
    """Text that stands in JSON as it is, valid or not."""

    __slots__ = ()


NASTY_RAW = [
    *map(Raw, ("NaN", "Infinity", "1e999", "-1e999", "9" * 5000, '"\\ud800"', "[" * 5000 + "]" * 5000, "[" * 40 + "]" * 40, "", "nul")),
    *map(Raw, ('{"a":1,"a":2}', "0123", "1.", "'x'", "[1,]", '"\t"', '{"a":' * 60 + "1" + "}" * 60)),
]


def mutate_bytes(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Flips, cuts, inserts, repeats, moves or replaces a few pieces; `others` are valid texts to splice from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 2, 4, 16, 64, 1000)))
        piece = data[start:end]
        match rng.randrange(7):
            case 0 if piece:
                piece = bytes([piece[0] ^ (1 << rng.randrange(8))]) + piece[1:]
            case 1:
                piece = b""
            case 2:
                piece = rng.choice(NASTY_TOKENS) + piece
            case 3:
                piece = piece * rng.choice((2, 3, 50))
            case 4 if others:
                other = rng.choice(others)
                cut = rng.randrange(len(other) + 1)
                piece = other[cut : cut + rng.choice((1, 8, 64, 1000))]
            case 5:
                piece = rng.randbytes(len(piece))
            case _:
                piece = rng.choice(NASTY_TOKENS)
        data = data[:start] + piece + data[end:]
    return data


def mutate_lines(rng: random.Random, data: bytes) -> bytes:
    """Repeats, drops, swaps or indents whole lines, or changes what stands behind a colon."""
    lines = data.splitlines(keepends=True) or [b""]
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(lines))
        line = lines[index]
        match rng.randrange(6):
            case 0:
                lines.insert(rng.randrange(len(lines) + 1), line)
            case 1 if len(lines) > 1:
                del lines[index]
            case 2:
                other = rng.randrange(len(lines))
                lines[index], lines[other] = lines[other], line
            case 3:
                lines[index] = b" " * rng.choice((1, 2, 4, 30)) + line
            case _:
                key, colon, _ = line.partition(b":")
                lines[index] = key + colon + b" " + rng.choice(NASTY_TOKENS) + b"\n"
    return b"".join(lines)


def mutate_tree(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value in which one node is replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        pairs = list(value.items())
        index = rng.randrange(len(pairs))
        key, item = pairs[index]
        match rng.randrange(10):
            case 0:
                del pairs[index]
            case 1:
                pairs[index] = (rng.choice(("", "x", "../x", "a\0", "x" * 3000, key + "x")), item)
            case 2:
                return Pairs([*pairs, (key, rng.choice(NASTY_VALUES))])
            case _:
                pairs[index] = (key, mutate_tree(rng, item))
        return dict(pairs)
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        match rng.randrange(4):
            case 0:
                return value[:index] + value[index + 1 :]
            case 1:
                return value[: index + 1] * 2 + value[index:]
            case _:
                return [*value[:index], mutate_tree(rng, value[index]), *value[index + 1 :]]
    return rng.choice(NASTY_RAW if rng.random() < 0.15 else NASTY_VALUES)


class Pairs(list[tuple[str, Any]]):
    """A JSON object in which a key may come twice."""


def dump(value: Any) -> bytes:
    """A JSON text of the value, `Raw` and `Pairs` in it included; half surrogate pairs stay what they are."""
    return _text(value).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs | dict):
        pairs = value.items() if isinstance(value, dict) else value
        return "{" + ",".join(f"{json.dumps(key)}:{_text(item)}" for key, item in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value)
