"""What machines tell about themselves, as files and programs of other machines say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanosam_cli.core.system import machine
from nanosam_cli.core.system.machine import Gpu, Load, Machine

X86 = """processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1
cpu MHz\t\t: 2596.122
flags\t\t: fpu avx2 avx512f avx_vnni avx512_vnni avx512_bf16

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd42
CPU revision\t: 1
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine's file system, without programs."""
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    monkeypatch.setattr(machine, "ask", lambda *_: None)
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("cpuinfo", "cpu_id", "there", "lacking"),
    [
        (
            X86,
            "cpu family 26, model 2, stepping 1",
            {"avx2", "avx512", "avx512_vnni", "avx_vnni", "bf16"},
            {"amx"},
        ),
        (ARM, "cpu implementer 0x41, cpu part 0xd42, cpu revision 1", {"neon", "dotprod", "fp16"}, {"i8mm", "bf16"}),
    ],
    ids=["x86", "arm"],
)
def test_processor(root: Path, cpuinfo: str, cpu_id: str, there: set[str], lacking: set[str]) -> None:
    put(root, "proc/cpuinfo", cpuinfo)
    features = machine.cpu_features()
    assert features is not None
    assert {name for name, has in features.items() if has} == there
    assert {name for name, has in features.items() if not has} == lacking
    assert machine.read_machine(()).cpu_id == cpu_id
    assert machine.cpu_model() == "AMD EPYC" if cpuinfo is X86 else machine.cpu_model()


def test_a_machine_that_tells_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "sysconf", refuse, raising=False)
    monkeypatch.setattr(os, "getloadavg", refuse, raising=False)
    found = machine.read_machine(machine.read_gpus())
    assert (found.board, found.cpu_id, found.memory_gib, found.gpus) == (None, None, None, ())
    assert found.cpu
    assert found.cores >= 1
    assert machine.cpu_features() is machine.free_memory_bytes() is None
    settings = machine.read_settings(())
    assert (settings.power_mode, settings.governor, settings.cpu_max_mhz, settings.gpu_driver) == (None,) * 4
    assert machine.read_load(()) == Load(None, None, None)
    assert not Load(None, None, None).busy(1)


def test_a_jetson(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpufreq = "sys/devices/system/cpu/cpu0/cpufreq"
    put(root, "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    put(root, "proc/meminfo", "MemTotal: 3 kB\nMemAvailable:   2048 kB\n")
    put(root, f"{cpufreq}/scaling_governor", "schedutil\n")
    put(root, f"{cpufreq}/scaling_max_freq", "2201600\n")
    put(root, f"{cpufreq}/scaling_cur_freq", "729600\n")
    answers = {
        "nvpmodel": "NV Power Mode: MODE_30W\n2",
        "nvidia-smi": "Orin (nvgpu), 540.3.0, [N/A], [N/A], [N/A], [N/A]",
    }
    monkeypatch.setattr(machine, "ask", lambda program, *_: answers.get(program))
    gpus = machine.read_gpus()
    assert gpus == (Gpu("Orin (nvgpu)", "540.3.0", None, None, None, None, None),)
    assert str(gpus[0]) == "Orin (nvgpu), driver 540.3.0"
    assert str(machine.read_machine(gpus)).startswith("NVIDIA Jetson AGX Orin Developer Kit, ")
    settings = machine.read_settings(gpus)
    assert (settings.power_mode, settings.governor, settings.cpu_max_mhz) == ("MODE_30W", "schedutil", 2201)
    assert machine.read_load(gpus).cpu_mhz == 729
    assert machine.free_memory_bytes() == 2048 * 1024


def test_gpus_of_old_and_new_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "Tesla T4, 550.54, 15360, 300, 1590, 70.00"
    monkeypatch.setattr(machine, "ask", lambda *command: f"{line}, 7.5\n{line}, 7.5\n")
    assert machine.read_gpus() == (Gpu("Tesla T4", "550.54", 15360, 300, 1590, 70.0, "7.5"),) * 2
    assert str(machine.read_gpus()[0]) == "Tesla T4, 15360 MB, compute capability 7.5, driver 550.54"
    monkeypatch.setattr(machine, "ask", lambda *command: None if "compute_cap" in command[1] else line)
    assert machine.read_gpus() == (Gpu("Tesla T4", "550.54", 15360, 300, 1590, 70.0, None),)


def test_programs() -> None:
    assert machine.ask("no-such-program-here") is None
    assert machine.ask("false") is None
    assert machine.ask("echo", "said") == "said"


@pytest.mark.parametrize(("average", "cores", "busy"), [(0.4, 2, False), (0.6, 2, True), (0.6, 16, False)])
def test_busy(average: float, cores: int, busy: bool) -> None:
    assert Load(average, None, None).busy(cores) == busy


def test_differences() -> None:
    one = Machine(None, "CPU", None, 2, 8, "Linux x86_64", ())
    assert one.differences(one) == {}
    other = Machine(None, "CPU", None, 4, 8, "Linux x86_64", ("GPU",))
    assert one.differences(other) == {"cores": (2, 4), "gpus": ((), ("GPU",))}
