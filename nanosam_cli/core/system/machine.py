"""This machine: its hardware, how it is set, and how busy it is. What it does not tell is None, never a guess."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_ROOT = Path("/")  # of Linux's descriptions of itself
_BUSY = 0.25  # waiting programs a core from which on times are not to be trusted

# A feature's name here -> /proc/cpuinfo's names for it, any of which will do: the instructions that model runtimes use
_X86_FEATURES: Mapping[str, tuple[str, ...]] = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "avx512_vnni": ("avx512_vnni",),
    "avx_vnni": ("avx_vnni",),
    "amx": ("amx_tile",),
    "bf16": ("avx512_bf16", "amx_bf16"),
}
_ARM_FEATURES: Mapping[str, tuple[str, ...]] = {
    "neon": ("asimd", "neon"),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "fp16": ("asimdhp",),
    "bf16": ("bf16",),
}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as nvidia-smi tells."""

    name: str
    driver: str | None
    memory_mb: int | None
    clock_mhz: int | None  # of the multiprocessors, now
    max_clock_mhz: int | None
    power_limit_w: float | None
    compute_capability: str | None

    def __str__(self) -> str:
        parts = (
            self.name,
            self.memory_mb is not None and f"{self.memory_mb} MB",
            self.compute_capability and f"compute capability {self.compute_capability}",
            self.driver and f"driver {self.driver}",
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Machine:
    """Hardware alone: two runs whose `Machine`s are equal can be compared."""

    board: str | None  # a single-board computer's own name, such as a Jetson's
    cpu: str
    cpu_id: str | None  # family, model and stepping, because virtual machines shorten the name
    cores: int  # logical ones, that this process may use
    memory_gib: int | None
    platform: str  # such as Linux x86_64
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        parts = [self.board, f"{self.cpu}, {self.cores} cores", *self.gpus, self.platform]
        return ", ".join(part for part in parts if part)

    def differences(self, other: Machine) -> dict[str, tuple[Any, Any]]:
        """What is not the same: name -> this one's and the other's value."""
        pairs = {entry.name: (getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Settings:
    """How the machine is set; it may change from run to run, and times with it."""

    python: str
    power_mode: str | None  # a Jetson's
    governor: str | None  # the CPU's
    cpu_max_mhz: int | None
    gpu_driver: str | None
    gpu_power_limit_w: float | None


@dataclass(frozen=True)
class Load:
    """What else was going on; differs between any two runs."""

    average: float | None  # programs that want a core, over the last minute
    cpu_mhz: int | None
    gpu_mhz: int | None

    def busy(self, cores: int) -> bool:
        """Whether other programs take so much of the cores that times will be too long."""
        return self.average is not None and self.average > _BUSY * cores


def read_machine(gpus: Sequence[Gpu]) -> Machine:
    """The hardware that this process may use; `gpus` are `read_gpus()`."""
    memory = memory_bytes()
    return Machine(
        board=board(),
        cpu=cpu_model(),
        cpu_id=_cpu_id(),
        cores=usable_cores(),
        memory_gib=None if memory is None else round(memory / 2**30),
        platform=f"{platform.system()} {platform.machine()}",
        gpus=tuple(gpu.name for gpu in gpus),
    )


def read_settings(gpus: Sequence[Gpu]) -> Settings:
    gpu = next(iter(gpus), None)
    return Settings(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        power_mode=_power_mode(),
        governor=_text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        cpu_max_mhz=_mhz("scaling_max_freq"),
        gpu_driver=gpu.driver if gpu else None,
        gpu_power_limit_w=gpu.power_limit_w if gpu else None,
    )


def read_load(gpus: Sequence[Gpu]) -> Load:
    try:
        average = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows; a system that cannot tell
        average = None
    gpu = next(iter(gpus), None)
    now = _mhz("scaling_cur_freq") or _number(_cpuinfo().get("cpu MHz"))
    return Load(average, now, gpu.clock_mhz if gpu else None)


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def board() -> str | None:
    """A single-board computer's name, such as `NVIDIA Jetson Orin Nano Developer Kit`."""
    return _text("proc/device-tree/model")


def cpu_model() -> str:
    """The processor's name as the machine gives it, else its architecture."""
    told = _cpuinfo().get("model name")
    if told is None and platform.system() == "Darwin":
        told = ask("sysctl", "-n", "machdep.cpu.brand_string")
    return told or platform.processor() or platform.machine()


def cpu_features() -> dict[str, bool] | None:
    """The instructions that matter to model runtimes, and whether this processor has them; None: it does not tell."""
    info = _cpuinfo()
    for key, table in (("flags", _X86_FEATURES), ("Features", _ARM_FEATURES)):
        if key in info:
            found = set(info[key].split())
            return {name: not found.isdisjoint(spellings) for name, spellings in table.items()}
    return None


def memory_bytes() -> int | None:
    """All main memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows; a system that cannot tell
        return None


def free_memory_bytes() -> int | None:
    """Main memory that programs can still get."""
    for line in (_text("proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def read_gpus() -> tuple[Gpu, ...]:
    """NVIDIA's GPUs; empty where there is none, or no driver that works."""
    columns = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit"
    for query in (f"{columns},compute_cap", columns):  # old drivers do not know the last
        table = ask("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits")
        if table is not None:
            rows = ([cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.strip())
            return tuple(_gpu(row) for row in rows)
    return ()


def ask(*command: str) -> str | None:
    """What a program prints; None where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _gpu(cells: list[str]) -> Gpu:
    name, driver, memory, clock, max_clock, power, *rest = [*cells, "", "", "", "", ""]
    watts = power if power.replace(".", "", 1).isdigit() else None
    capability = rest[0] if rest[0].replace(".", "", 1).isdigit() else None
    return Gpu(
        name=name,
        driver=driver or None,
        memory_mb=_number(memory),
        clock_mhz=_number(clock),
        max_clock_mhz=_number(max_clock),
        power_limit_w=None if watts is None else float(watts),
        compute_capability=capability,
    )


def _power_mode() -> str | None:
    """`NV Power Mode: MAXN` -> MAXN."""
    lines = (ask("nvpmodel", "-q") or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("NV Power Mode")), None)


def _cpu_id() -> str | None:
    keys = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU revision")
    found = [f"{key.lower()} {value}" for key, value in _cpuinfo().items() if key in keys]
    return ", ".join(found) or None


def _cpuinfo() -> dict[str, str]:
    """/proc/cpuinfo of the first core."""
    first = (_text("proc/cpuinfo") or "").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _mhz(name: str) -> int | None:
    kilohertz = _number(_text(f"sys/devices/system/cpu/cpu0/cpufreq/{name}"))
    return None if kilohertz is None else kilohertz // 1000


def _number(text: str | None) -> int | None:
    """A number's whole part; None for `[N/A]` and the like."""
    whole = (text or "").partition(".")[0]
    return int(whole) if whole.isascii() and whole.isdigit() else None


def _text(name: str) -> str | None:
    try:
        return (_ROOT / name).read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
