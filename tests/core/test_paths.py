from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from nanosam_cli.core import paths
from nanosam_cli.core.errors import UsageError


def test_every_variable_is_named_once_and_explained() -> None:
    names = [variable.name for variable in paths.VARIABLES]
    assert sorted(names) == [
        *("NANOSAM_BACKEND", "NANOSAM_DEVICE", "NANOSAM_HOME"),
        *("NANOSAM_MIRROR", "NANOSAM_OFFLINE", "NANOSAM_TEST_DATA"),
    ]
    assert all(variable.help.endswith(".") and "\n" not in variable.help for variable in paths.VARIABLES)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        (paths.DEVICE, "cuda", "cuda"),
        (paths.DEVICE, " cuda ", "cuda"),
        (paths.DEVICE, "", None),
        (paths.DEVICE, "  ", None),
        (paths.MIRROR, "https://example.org/models", "https://example.org/models"),
        (paths.TEST_DATA, "~/data", Path.home() / "data"),
        (paths.OFFLINE, "1", True),
        (paths.OFFLINE, "Yes", True),
        (paths.OFFLINE, "0", False),
        (paths.OFFLINE, "off", False),
        (paths.OFFLINE, "", None),
    ],
)
def test_values(monkeypatch: pytest.MonkeyPatch, variable: paths.Variable[object], text: str, value: object) -> None:
    monkeypatch.setenv(variable.name, text)
    assert variable.get() == value
    monkeypatch.delenv(variable.name)
    assert variable.get() is None


def test_a_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOSAM_OFFLINE", "maybe")
    with pytest.raises(UsageError, match="NANOSAM_OFFLINE=maybe: expected one of 1, true"):
        paths.OFFLINE.get()


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.home() == Path(platformdirs.user_cache_dir("nanosam", appauthor=False))
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "elsewhere"))
    assert paths.home() == tmp_path / "elsewhere"
    assert not paths.home().exists()  # asking makes nothing


@pytest.mark.parametrize(
    ("existing", "parts", "found"),
    [
        (["pkg/data/recipes/a.toml"], ("recipes", "a.toml"), "pkg/data/recipes/a.toml"),
        (["recipes/a.toml"], ("recipes", "a.toml"), "recipes/a.toml"),
        (["pkg/data/recipes/a.toml", "recipes/a.toml"], ("recipes", "a.toml"), "pkg/data/recipes/a.toml"),
        (["recipes/a.toml", "pkg/data/models/m/encoder.onnx"], ("recipes",), "recipes"),
        (["pkg/data/models/m/encoder.onnx"], ("models", "m", "encoder.onnx"), "pkg/data/models/m/encoder.onnx"),
        (["models/m/encoder.onnx"], ("models", "m", "encoder.onnx"), "pkg/data/models/m/encoder.onnx"),
        ([], ("recipes", "a.toml"), "pkg/data/recipes/a.toml"),
    ],
)
def test_resource(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, existing: list[str], parts: tuple[str, ...], found: str
) -> None:
    for name in existing:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "pkg")
    assert paths.resource(*parts) == tmp_path / found


def test_resource_of_this_checkout_or_wheel() -> None:
    assert paths.resource("recipes").is_dir()
    assert paths.resource("examples").is_dir()
