"""What there is on this machine to compute with, what is missing, and whether the kernels here compute right."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

import layernet
from layernet.backend import compiled
from layernet.backend.allocation import keep_pages
from layernet.backend.device import get_device
from layernet.config.names import BUILT_IN
from layernet.data.files import NotThere, OnDisk
from layernet.errors import DataError, DeviceError
from layernet.testing.kernels import check_kernels, wrong
from layernet.text import aligned, size
from layernet.train.rundir import processor

EXTRAS = {"fast": "numba", "cuda12": "cupy", "cuda13": "cupy"}
"""The optional extras, and the module that each brings: cupy comes for one version of CUDA or the next."""

_VARIABLES = (
    *("LAYERNET_DATA", "LAYERNET_LANES", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"),
    *("NUMBA_THREADING_LAYER", "NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("MKL_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "CUDA_VISIBLE_DEVICES"),
)

Facts = dict[str, Any]


def examine() -> Facts:
    """All that `as_text` shows, as plain data; `broken` lists what does not work though it should, `hints` the rest."""
    facts: Facts = {"versions": _versions(), "processor": _processor(), "blas": _blas(), "broken": [], "hints": []}
    facts["kernels"] = _kernels(facts)
    facts["cache"] = _cache(facts) if facts["kernels"].get("kernels") == "numba" else None
    facts["memory"] = {"keeps_pages": keep_pages()}
    facts["data"] = _data(facts)
    facts["gpu"] = _gpu()
    facts["extras"] = {name: _extra(name) for name in EXTRAS}
    facts["environment"] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    facts["self_test"] = _self_test(facts)
    return facts


def _versions() -> dict[str, str]:
    found = {"layernet": layernet.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for package in ("numba", "llvmlite", "tbb", "cupy-cuda12x", "cupy-cuda13x", "cupy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> Facts:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": processor(), "cores": usable, "platform": platform.platform()}


def _blas() -> list[Facts]:
    keys = ("internal_api", "version", "architecture", "num_threads")
    return [
        {key: info.get(key) for key in keys} for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"
    ]


def _kernels(facts: Facts) -> Facts:
    """What `kernels: auto` takes, and why."""
    try:
        problem = compiled.problem()
        device = get_device("cpu")
        with device.limited(None):
            found = device.facts()
    except DeviceError as error:
        facts["broken"].append(str(error))
        return {"why": str(error)}
    if problem is not None:
        facts["hints"].append(f"kernels would be several times as fast: {problem}; {compiled.CURE}")
        return {**found, "why": problem}
    return {**found, "why": "numba can be imported, and its threads start quickly"}


def _cache(facts: Facts) -> Facts:
    """Where compiled kernels are kept. `others`: folders of other versions, which nothing reads any more."""
    from layernet.backend.compiled.cache import folder, roots
    from layernet.backend.compiled.warmup import kernels

    mine = folder()
    wanted = next(roots(), mine)
    if wanted not in mine.parents:
        facts["hints"].append(f"{wanted} cannot be written, so kernels are kept in {mine}: set NUMBA_CACHE_DIR")
    others = [path for path in mine.parent.iterdir() if path.is_dir() and path != mine]
    every = list(kernels())
    return {
        "folder": str(mine),
        "bytes": _bytes_in(mine),
        "kernels": len(every),
        "compiled": sum(kernel.kept for kernel in every),
        "others": len(others),
        "others_bytes": sum(map(_bytes_in, others)),
    }


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _data(facts: Facts) -> Facts:
    """Which data sets that are read from files are there. A folder without the files gets a hint; damage is broken."""
    given = os.environ.get("LAYERNET_DATA")
    directory = Path(given or "data").expanduser().absolute()
    if given and not directory.is_dir():
        facts["broken"].append(f"LAYERNET_DATA is {given}, where there is no directory: correct it, or leave it out")
    found, missing = [], []
    for name, place in BUILT_IN["dataset"].items():
        module, _, attribute = place.partition(":")
        cls = getattr(import_module(module), attribute)
        if not (issubclass(cls, OnDisk) and hasattr(cls, "folder")):
            continue
        if not cls().directory.is_dir():
            missing.append(name)
            continue
        try:
            for split in ("train", "test"):
                cls(split).check()
        except NotThere as error:
            missing.append(name)
            facts["hints"].append(str(error))
        except DataError as error:
            facts["broken"].append(str(error))
        else:
            found.append(name)
    return {"directory": str(directory), "set": bool(given), "found": found, "missing": missing}


def _gpu() -> Facts:
    try:
        return {"found": True, **get_device("cuda").facts()}
    except DeviceError as error:
        return {"found": False, "why": error.message}
    except Exception as error:  # a driver may fail in any way: that is what is asked here
        return {"found": False, "why": f"{type(error).__name__}: {error}"}


def _extra(name: str) -> Facts:
    return {"installed": importlib.util.find_spec(EXTRAS[name]) is not None, "get": f"pip install 'layernet[{name}]'"}


def _self_test(facts: Facts) -> Facts:
    """Each family of kernels against the reference, for those of the CPU that `auto` takes and for a GPU."""
    tested = {"cpu": facts["kernels"].get("kernels"), **({"cuda": "cupy"} if facts["gpu"]["found"] else {})}
    found: Facts = {}
    for name, kernels in tested.items():
        if kernels is None:  # there are none
            continue
        start = time.perf_counter()
        device = get_device(name)
        verdicts = check_kernels(device)
        found[name] = {"kernels": kernels, "seconds": round(time.perf_counter() - start, 2), "families": verdicts}
        facts["broken"] += wrong(verdicts)
    return found


def as_text(facts: Facts) -> str:
    """One screen of it."""
    rows = [
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        ("processor", "{name}, {cores} cores usable; {platform}".format(**facts["processor"])),
        ("BLAS", "; ".join(map(_blas_in_words, facts["blas"])) or "none that tells of itself"),
        ("kernels", _kernels_in_words(facts["kernels"])),
    ]
    if facts["cache"] is not None:
        rows.append(("kernel cache", _cache_in_words(facts["cache"])))
    kept = (
        "stays with the process" if facts["memory"]["keeps_pages"] else "goes back to the system, as its settings say"
    )
    rows += [
        ("memory", f"what a step frees {kept}"),
        ("data", _data_in_words(facts["data"])),
        ("GPU", _gpu_in_words(facts["gpu"])),
        ("extras", "; ".join(f"{name}: {_extra_in_words(extra)}" for name, extra in facts["extras"].items())),
    ]
    if facts["environment"]:
        rows.append(("environment", " ".join(f"{name}={value}" for name, value in facts["environment"].items())))
    for name, test in facts["self_test"].items():
        rows.append(("self-test", f"{name}, {test['kernels']} kernels, {test['seconds']:.2f} s: {_tested(test)}"))
    lines = [aligned(rows)]
    lines += [f"broken: {what}" for what in facts["broken"]]
    lines += [f"hint: {what}" for what in facts["hints"]]
    return "\n".join([*lines, "something is broken" if facts["broken"] else "all that is here works"])


def _blas_in_words(blas: Facts) -> str:
    kind = f" ({blas['architecture']})" if blas["architecture"] else ""
    return f"{blas['internal_api']} {blas['version']}{kind}, threads: {blas['num_threads']}"


def _kernels_in_words(kernels: Facts) -> str:
    if "kernels" not in kernels:
        return f"none: {kernels['why']}"
    text = f"auto takes {kernels['kernels']}: {kernels['why']}"
    if "lanes" in kernels:
        forced = ", forced by LAYERNET_LANES" if "LAYERNET_LANES" in os.environ else ""
        text += f"; {kernels['lanes']} lanes ({_LANES[kernels['lanes']]}{forced}), threads: {kernels['threads']}"
        return f"{text} ({kernels['threading_layer']})"
    return f"{text}; threads: {kernels['threads']}" if "threads" in kernels else text


_LANES = {16: "AVX-512", 8: "AVX2 and FMA", 4: "any processor's"}


def _cache_in_words(cache: Facts) -> str:
    text = (
        f"{cache['folder']} can be written: {cache['compiled']} of {cache['kernels']} kernels, {size(cache['bytes'])}"
    )
    if cache["others"]:
        text += f"; beside it {cache['others']} of other versions, {size(cache['others_bytes'])}, not needed any more"
    return text


def _data_in_words(data: Facts) -> str:
    where = f"{data['directory']} (LAYERNET_DATA{'' if data['set'] else ' is not set'})"
    return f"{where}: found {', '.join(data['found']) or 'none'}; not there: {', '.join(data['missing']) or 'none'}"


def _gpu_in_words(gpu: Facts) -> str:
    if not gpu["found"]:
        return f"none: {gpu['why']}"
    return "{gpu}, cupy {cupy}, CUDA runtime {cuda_runtime}, driver {cuda_driver}".format(**gpu)


def _extra_in_words(extra: Facts) -> str:
    return "installed" if extra["installed"] else extra["get"]


def _tested(test: Facts) -> str:
    return ", ".join(f"{name} {verdict.partition(':')[0]}" for name, verdict in test["families"].items())
