"""The arrows of the design: which module may import what, and how little `nanosam --help` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nanosam_cli

PACKAGE = Path(nanosam_cli.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

TRAINING = (
    "core.modeling",
    "core.training",
    "core.export",
    "core.prompting.text_prompt",
    "core.inference.backends.torch",
)
ENGINES = ("core.inference.backends.tensorrt", "core.engine", "core.precision")

# heavy package -> the only modules that may import it
HOMES = {
    "torch": TRAINING,
    "torchvision": TRAINING,
    "timm": TRAINING,
    "transformers": ("core.prompting.text_prompt",),
    "huggingface_hub": ("core.prompting.text_prompt",),
    "mediapipe": ("core.prompting.pose_estimator",),
    "onnxruntime": ("core.inference.backends.onnxruntime", "core.loading.engines", "core.export", "core.engine"),
    "openvino": ("core.inference.backends.openvino",),
    "tensorrt": ENGINES,
    "tensorrt_rtx": ENGINES,
    "polygraphy": ENGINES,
    "cuda": ("core.inference.backends.tensorrt",),
    "pycocotools": ("core.datasets.coco", "core.media.mask_codes", "core.evaluation.metrics"),
    "shapely": ("core.media.mask_codes",),
    "matplotlib": ("core.showing", "core.evaluation", "core.training"),
    "supervision": ("core.segmentation.to_supervision",),
    "av": ("core.media.video",),
    "pillow_heif": ("core.media.image",),
    "yaml": ("core.prompting.class_names", "core.prompting.text_prompt"),  # the latter: the error of a model's card
    "tkinter": ("core.tracking.window",),
    "requests": ("core.zoo.transport",),
    "urllib3": ("core.zoo.transport",),
    "filelock": ("core.system",),
    "fastapi": ("core.serving",),
    "starlette": ("core.serving",),
    "uvicorn": ("core.serving",),
    "pydantic": ("core.serving",),
    "ray": ("core.fleet.cluster",),
    "pyarrow": ("core.fleet",),
    "fsspec": ("core.fleet",),
    "rich": ("console",),
    "typer": ("app", "options", "prompt_options", "commands"),
}

# layer -> layers of this package that it may import
LAYERS = {
    "entry": {"app"},
    "app": {"app", "commands", "core", "options", "console", "version"},
    "commands": {"commands", "core", "options", "prompt_options", "console"},
    "options": {"console", "core"},
    "prompt_options": {"options"},
    "console": {"core"},
    "core": {"core", "version"},
    "version": set(),
}

# the rooms of core on their floors, from the ground up: a file imports its own room and lower floors alone
FLOORS = (
    ("",),  # the files of core itself
    ("system", "graphs"),
    ("media", "modeling", "zoo"),
    ("inference", "datasets"),
    ("prompting", "precision"),
    ("export", "segmentation", "tracking"),
    ("loading",),
    ("doctor", "engine", "evaluation"),
    ("benchmark", "training", "serving", "fleet"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FULLEST = 20  # Python files in a folder of core


def name_of(path: Path) -> str:
    """`nanosam_cli/core/media/image.py` -> `core.media.image`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, inside functions too; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_heavy_packages_stay_at_home(path: Path) -> None:
    module = name_of(path)
    strays = {name for name in imports(path) if not within(module, HOMES.get(name.split(".")[0], (module,)))}
    assert not strays


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path)], ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    layer = name_of(path).split(".")[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("nanosam_cli.")}
    assert used <= LAYERS[layer]


def room_of(module: str) -> str:
    """`core.media.image` -> `media`; the files of core itself are in the room without a name."""
    parts = module.split(".")[1:]
    return parts[0] if parts and (PACKAGE / "core" / parts[0]).is_dir() else ""


@pytest.mark.parametrize("path", [p for p in SOURCES if name_of(p).startswith("core.")], ids=name_of)
def test_rooms_stand_on_lower_floors(path: Path) -> None:
    """Imports inside functions count too."""
    room = room_of(name_of(path))
    used = {room_of(name.split(".", 1)[1]) for name in imports(path) if name.startswith("nanosam_cli.core.")}
    assert not {other for other in used if other != room and FLOOR_OF[other] >= FLOOR_OF[room]}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {name_of(path) for path in SOURCES}
    arrows = {
        name_of(path): {
            own if own in modules else own.rpartition(".")[0]
            for own in (name.removeprefix("nanosam_cli.") for name in imports(path) if name.startswith("nanosam_cli."))
        }
        for path in SOURCES
    }
    TopologicalSorter(arrows).prepare()  # CycleError names the circle


def test_a_public_name_of_a_class_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in SOURCES
        if name_of(path).startswith("core.")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in names.items() if count > 1]


def test_no_folder_is_full() -> None:
    count = Counter(path.parent.relative_to(PACKAGE) for path in SOURCES if name_of(path).startswith("core"))
    assert max(count.values()) <= FULLEST


@pytest.mark.parametrize("path", [p for p in SOURCES if name_of(p).startswith("commands")], ids=name_of)
def test_commands_do_no_arithmetic(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("numpy", "PIL")}


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path) != "console"], ids=name_of)
def test_only_the_console_prints(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert called not in ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write")


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        (
            "import sys; sys.argv = ['nanosam', '--help']\n"
            "from nanosam_cli.app import main\n"
            "try: main()\n"
            "except SystemExit as exit: assert exit.code == 0\n",
            {"torch", "onnxruntime", "onnx", "pycocotools", "PIL", "numpy", "polygraphy", "tensorrt", "transformers"}
            | {"requests", "urllib3", "filelock", "av", "tkinter", "shapely", "fastapi", "starlette", "uvicorn"}
            | {"ray", "pyarrow"},
        ),
        ("import nanosam_cli\n", {"typer", "rich", "numpy", "PIL", "onnxruntime"}),
        (
            "from nanosam_cli import load_predictor\n",
            {"typer", "rich", "torch", "onnx", "pycocotools", "requests", "filelock", "av", "shapely"},
        ),
    ],
    ids=["nanosam --help", "import nanosam_cli", "load_predictor"],
)
def test_what_is_not_loaded(program: str, unwanted: set[str]) -> None:
    program += "import sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not unwanted & {name.split(".")[0] for name in done.stderr.split()}
