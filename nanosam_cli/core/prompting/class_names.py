"""Names of classes by their number, from what other tools keep them in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanosam_cli.core.datasets.coco_layout import category_names
from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.ids import read_id, whole_number
from nanosam_cli.core.names import read_name
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import read_input_text

_KINDS = "give a name a line, a COCO file with categories, or a data.yaml with names"
_SETTING = re.compile(r"[\w.-]+\s*[:=](\s.*)?")  # `names:`, `nc: 2`, `classes = 2`


def read_class_names(file: Path) -> dict[int, str]:
    """Names by category id: those of a COCO file, of YOLO's data.yaml, or a name a line (a JSON list) from 0 on.

    The layout is known by the content. InputError where it is another one.
    """
    text = read_input_text(file)
    if text.lstrip()[:1] in ("{", "[") or file.suffix.lower() == ".json":
        return _of_coco(file, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    settings = [line for line in lines if not line.startswith("#") and _SETTING.fullmatch(line)]
    if file.suffix.lower() in (".yaml", ".yml") or any(re.match(r"names\s*:", line) for line in settings):
        return _of_yaml(file, text)
    if lines and (lines[0].startswith("<") or len(settings) == len(lines)):
        raise InputError(f"{file} is no list of class names: its first line is {lines[0][:60]}", _KINDS)
    return _numbered(file, dict(enumerate(lines)))


def _of_coco(file: Path, text: str) -> dict[int, str]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}", _KINDS) from error
    try:
        if isinstance(content, list) and content and not any(isinstance(name, (dict, list)) for name in content):
            return _numbered(file, dict(enumerate(content)))
        if isinstance(content, dict) and "names" in content:
            return _named_below(file, content["names"])
        return category_names(file, {read_id(entry, "id", str(file)): entry for entry in content["categories"]})
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} has no COCO categories: {fault(error)}", _KINDS) from error


def _of_yaml(file: Path, text: str) -> dict[int, str]:
    """`names` of a data.yaml: a list, or names by number. https://docs.ultralytics.com/datasets/detect/"""
    import yaml

    try:
        # every word stays text, so that a class may be called `no`, and nothing in the file makes an object
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"{file} is not YAML: {reason}", _KINDS) from error
    return _named_below(file, content.get("names") if isinstance(content, Mapping) else None)


def _named_below(file: Path, names: Any) -> dict[int, str]:
    """What stands below `names`, in every form that YOLO's tools write."""
    if not isinstance(names, (list, Mapping)) or not names:
        raise InputError(f"{file} has no names of classes: a data.yaml has them below `names`", _KINDS)
    return _numbered(file, dict(enumerate(names)) if isinstance(names, list) else names)


def _numbered(file: Path, names: Mapping[Any, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for key, name in names.items():
        try:
            number = whole_number(key)
        except ValueError as error:
            raise InputError(f"{file}, names: class {error}", "write the names by number, as in `0: cat`") from error
        if isinstance(name, (dict, list)):
            raise InputError(f"{file}, names: that of class {number} is no word", "write a name behind each number")
        found[number] = read_name({"name": name}, "name", f"{file}, class {number}")
    return found
