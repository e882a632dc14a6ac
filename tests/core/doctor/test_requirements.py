"""Requirement strings, and what of them is installed, by metadata that is written here."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from nanosam_cli.core.doctor import requirements
from nanosam_cli.core.doctor.check import Check
from nanosam_cli.core.doctor.requirements import Requirement, parse_requirement, requirement_checks

INSTALLED = {"nanosam-cli": "0.1.0", "typer": "0.29.2", "rich": "13.9", "torch": "2.13.0+cpu", "pytest": "9.2.0"}
NEEDED = [
    "typer>=0.26",
    "rich>=14",
    "polygraphy>=0.49",
    'nowhere; sys_platform == "atari"',
    'torch>=2.4; extra == "train"',
    'timm>=1.0.9; extra == "train"',
    'nanosam-cli[train]; extra == "dev"',
    'pytest>=8; extra == "dev"',
    'torch>=2.4; extra == "torch-only"',
]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _: NEEDED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy", Requirement("numpy", "", None)),
        ("numpy>=1.24", Requirement("numpy", ">=1.24", None)),
        ("numpy (>=1.24, <3)", Requirement("numpy", ">=1.24,<3", None)),
        ("torch>=2.4 ; extra == 'train'", Requirement("torch", ">=2.4", "train")),
        ('nanosam-cli[train, text]; extra == "dev"', Requirement("nanosam-cli", "", "dev", ("train", "text"))),
        ('tomli>=2; python_version < "3"', Requirement("tomli", ">=2", None, applies=False)),
        ('tomli>=2; python_version >= "3.9"', Requirement("tomli", ">=2", None)),
        (f'a; sys_platform == "{sys.platform}" and extra == "x"', Requirement("a", "", "x")),
        ('a; sys_platform != "atari" and platform_system == "TOS"', Requirement("a", "", None, applies=False)),
    ],
)
def test_requirement_strings(text: str, expected: Requirement) -> None:
    assert parse_requirement(text) == expected


def test_what_is_no_requirement() -> None:
    with pytest.raises(ValueError, match="not a requirement"):
        parse_requirement(">=2")


@pytest.mark.parametrize(
    ("name", "versions", "fault"),
    [
        ("typer", "", None),
        ("typer", ">=0.26", None),
        ("typer", ">=0.29.2", None),
        ("typer", ">=0.30", "0.29.2 is installed"),
        ("typer", ">=0.26,<0.29", "0.29.2 is installed"),
        ("torch", ">=2.13", None),
        ("torch", "<=2.13.0", None),
        ("torch", ">2.13", "2.13.0+cpu is installed"),
        ("timm", "", "missing"),
    ],
)
def test_faults(name: str, versions: str, fault: str | None) -> None:
    assert Requirement(name, versions, None).fault() == fault


def test_checks() -> None:
    assert requirement_checks() == [
        Check("packages", "nanosam-cli", "ok", "0.1.0"),
        Check("packages", "typer", "ok", "0.29.2"),
        Check("packages", "rich", "broken", "rich>=14: 13.9 is installed", "pip install 'rich>=14'"),
        Check("packages", "polygraphy", "missing", "polygraphy>=0.49: missing", "pip install 'polygraphy>=0.49'"),
        Check("extras", "train", "missing", "timm>=1.0.9: missing", "pip install 'nanosam-cli[train]'"),
        Check("extras", "dev", "missing", "timm>=1.0.9: missing", "pip install 'nanosam-cli[dev]'"),
        Check("extras", "torch-only", "ok", "torch 2.13.0+cpu"),
    ]


def test_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "DISTRIBUTION", "not-installed")
    (check,) = requirement_checks()
    assert (check.status, check.fix) == ("missing", "pip install -e .")
