"""Class names that people give to what they prompt: checked, given to its objects, and numbered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.names import class_name
from nanosam_cli.core.prompting.request import PromptLabel, Request

UNNAMED = "object"  # for what nobody gave a class


def check_class_name(name: Any) -> str:
    """A class's name, without blanks around it. UsageError where it is none: it ends up as a line of a file."""
    try:
        return class_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def labelled(request: Request, names: Sequence[str]) -> Request:
    """The request with a class for each of its objects: one name for all of them, or one each.

    Classes have no numbers of their own yet; see `numbered`. UsageError where the count is another one.
    """
    if len(names) not in (1, request.count):
        raise UsageError(f"{len(names)} labels for {request.count} objects", "give one for all, or one for each")
    checked = [check_class_name(name) for name in names]
    tags = [PromptLabel(name) for name in (checked * request.count if len(checked) == 1 else checked)]
    return replace(request, tags=tags)


def numbered(requests: Mapping[str, Request]) -> dict[str, Request]:
    """The same requests with category ids 1, 2, ... in the order in which names first appear.

    Where some objects have a name, those without are called `UNNAMED`, so that they are no other class.
    """
    if not any(request.tags for request in requests.values()):
        return dict(requests)
    tagged = {key: request if request.tags else labelled(request, [UNNAMED]) for key, request in requests.items()}
    names = dict.fromkeys(tag.name for request in tagged.values() for tag in request.tags)
    ids = {name: number for number, name in enumerate(names, 1)}
    return {
        key: replace(request, tags=[replace(tag, category_id=ids[tag.name]) for tag in request.tags])
        for key, request in tagged.items()
    }


def classes_of(requests: Iterable[Request]) -> dict[int, str]:
    """Names by category id; none where no object has one."""
    tags = [tag for request in requests for tag in request.tags]
    return {tag.category_id: tag.name for tag in tags if tag.name is not None}
