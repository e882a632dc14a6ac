from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.documents import parse_json, parse_toml, read_json, read_toml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, 2.5, null, "\xc3\xa9"]}', {"a": [1, 2.5, None, "\u00e9"]}),
        (b"\xef\xbb\xbf[]", []),  # a byte order mark, as Windows writes it
        ("[1]".encode("utf-16"), [1]),
        ('"\\udcff"', "\udcff"),  # a byte of a file name that is no text
    ],
)
def test_json_of_every_tool(text: str | bytes, value: Any) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Expecting value"),
        (b'{"a": "\xff"}', "it is no text: invalid start byte at byte 7"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"a":' * 200_000, "it is nested too deeply"),
        (b"9" * 5000, "it has a number of thousands of digits"),
        (b"[1", "delimiter"),
        (b"[1] [2]", "Extra data"),
        (b"\x00" * 100, "Expecting value"),
    ],
)
def test_what_is_no_json(text: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=rf"a\.json is not JSON: .*{words}") as caught:
        read_json(path, "write it anew")
    assert caught.value.hint == "write it anew"


def test_a_name_that_stands_twice() -> None:
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match='"a" stands in it 2 times'):
        parse_json('[{"b": {"a": 1, "a": 2}}]', unique=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = ", "Invalid value"),
        (b"\xff = 1", "codec can't decode"),
        (b"a = " + b"[" * 100_000, "it is nested too deeply"),
        (b"a = " + b"9" * 5000, "it has a number of thousands of digits"),
        (b"a = 1\na = 2", "Cannot overwrite a value"),
    ],
)
def test_what_is_no_toml(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=rf"a\.toml is not TOML: .*{re.escape(words)}"):
        read_toml(path)


def test_toml_of_one_line() -> None:
    assert parse_toml("a = [1, 2]") == {"a": [1, 2]}


def test_a_file_that_is_larger_than_its_kind_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b" " * 1000 + b"1")
    assert read_json(path, "") == 1
    with pytest.raises(InputError, match="has more than 0 MiB"):
        read_json(path, "", most=1000)
