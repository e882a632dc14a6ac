"""What this package needs, read from its own metadata, and what of it is installed.

A reader of the requirement strings that this project writes (PEP 508 without URLs and `or`), so that finding a fault
needs no package that may be at fault.
"""

from __future__ import annotations

import operator
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from nanosam_cli.core.doctor.check import Check, CheckStatus

DISTRIBUTION = "nanosam-cli"

_REQUIREMENT = re.compile(
    r"^(?P<name>[\w.-]+)\s*(\[(?P<extras>[^\]]*)\])?\s*\(?(?P<versions>[^;)]*)\)?(;(?P<marker>.*))?$"
)
_CLAUSE = re.compile(r"(?P<left>\w+)\s*(?P<sign>[<>=!]=|[<>])\s*['\"](?P<right>[^'\"]*)['\"]")
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Requirement:
    """One package that is needed, always or for an extra."""

    name: str
    versions: str  # such as >=2.4,<3
    extra: str | None  # whose requirement it is; None for the base installation
    includes: tuple[str, ...] = ()  # extras of the package that are asked for
    applies: bool = True  # on this machine

    def __str__(self) -> str:
        return f"{self.name}{self.versions}"

    def fault(self) -> str | None:
        """What is wrong: `missing`, `1.2 is installed`, or None where a fitting version is there."""
        try:
            installed = metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return "missing"
        return None if _fits(installed, self.versions) else f"{installed} is installed"


def parse_requirement(text: str) -> Requirement:
    """`torch>=2.4; extra == "train"` -> Requirement. ValueError where the text is none."""
    found = _REQUIREMENT.match(text.strip())
    if not found:
        raise ValueError(f"not a requirement: {text!r}")
    clauses = list(_CLAUSE.finditer(found["marker"] or ""))
    extras = tuple(extra.strip() for extra in (found["extras"] or "").split(",") if extra.strip())
    return Requirement(
        name=found["name"],
        versions="".join(found["versions"].split()),
        extra=next((clause["right"] for clause in clauses if clause["left"] == "extra"), None),
        includes=extras,
        applies=all(_holds(clause) for clause in clauses if clause["left"] != "extra"),
    )


def requirement_checks() -> list[Check]:
    """This package, each package of the base installation, and each extra."""
    try:
        version, needed = metadata.version(DISTRIBUTION), metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        detail = "runs from a source tree without being installed, so what it needs is not known"
        return [Check("packages", DISTRIBUTION, "missing", detail, "pip install -e .")]
    requirements = [found for found in map(parse_requirement, needed) if found.applies]
    base = [_package(requirement) for requirement in requirements if requirement.extra is None]
    extras = dict.fromkeys(requirement.extra for requirement in requirements if requirement.extra)
    return [
        Check("packages", DISTRIBUTION, "ok", version),
        *base,
        *(_extra(extra, _of_extra(extra, requirements)) for extra in extras),
    ]


def _package(requirement: Requirement) -> Check:
    fault = requirement.fault()
    if fault is None:
        return Check("packages", requirement.name, "ok", metadata.version(requirement.name))
    status: CheckStatus = "missing" if fault == "missing" else "broken"
    return Check("packages", requirement.name, status, f"{requirement}: {fault}", f"pip install '{requirement}'")


def _extra(extra: str, requirements: Sequence[Requirement]) -> Check:
    faults = {requirement: requirement.fault() for requirement in requirements}
    wrong = [f"{requirement}: {fault}" for requirement, fault in faults.items() if fault]
    if not wrong:
        detail = ", ".join(f"{requirement.name} {metadata.version(requirement.name)}" for requirement in requirements)
        return Check("extras", extra, "ok", detail)
    return Check("extras", extra, "missing", ", ".join(wrong), f"pip install '{DISTRIBUTION}[{extra}]'")


def _of_extra(extra: str, requirements: Sequence[Requirement]) -> list[Requirement]:
    """An extra's packages; `nanosam-cli[train]` in another extra stands for that one's."""
    found: dict[Requirement, None] = {}
    for requirement in requirements:
        if requirement.extra != extra:
            continue
        if requirement.name == DISTRIBUTION:
            inner = (one for name in requirement.includes for one in _of_extra(name, requirements))
            found.update(dict.fromkeys(inner))
        else:
            found[requirement] = None
    return list(found)


def _fits(installed: str, versions: str) -> bool:
    """Whether the numbers of a version are in a range such as >=2.4,<3; other signs (~=, ==1.*) are not judged."""
    bounds = re.findall(r"([<>]=?)([\d.]+)", versions)
    return all(_SIGNS[sign](_numbers(installed), _numbers(bound)) for sign, bound in bounds)


def _holds(clause: re.Match[str]) -> bool:
    """One part of a marker, such as python_version < "3.11"; what is not known here counts as true."""
    here = {
        "sys_platform": sys.platform,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
    }
    sign = _SIGNS[clause["sign"]]
    if clause["left"] == "python_version":
        return sign(sys.version_info[:2], _numbers(clause["right"])[:2])
    return clause["left"] not in here or sign(here[clause["left"]], clause["right"])


def _numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13): trailing zeros mean nothing."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
