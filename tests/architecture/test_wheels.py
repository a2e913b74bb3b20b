"""What a user installs: each wheel is whole, declares what it imports, and brings nothing else with it."""

from __future__ import annotations

import configparser
import email
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import limbeck_core
from source_tree import PROJECTS, ROOT

# The table of packages. Names only: lower bounds stand in each pyproject.toml.
DEPENDENCIES = {
    "limbeck-core": {"torch", "mmengine"},
    "limbeck-detection": {"limbeck-core", "torchvision", "scipy", "faster-coco-eval"},
    "limbeck-medical": {"limbeck-core", "monai", "nibabel", "einops", "scipy", "pillow", "timm", "torchvision"},
    "limbeck-nlp": {"limbeck-core", "transformers", "seqeval", "scikit-learn", "scipy"},
    "limbeck-pose": {"limbeck-core", "torchvision", "faster-coco-eval"},
    "limbeck-audiovideo": {"limbeck-core", "av", "scikit-learn", "scipy", "soundfile"},
    "limbeck-vision": {"limbeck-core", "torchvision", "timm", "scikit-learn"},
}
EXTRAS: dict[str, set[str]] = {name: set() for name in DEPENDENCIES}
EXTRAS |= {"limbeck-detection": {"open3d", "transformers"}, "limbeck-vision": {"mnist"}}
EXTRAS |= {"limbeck-nlp": {"fairseq", "translation"}}
EXTRAS |= {"limbeck-audiovideo": {"imu", "sed", "timm", "transformers"}}
IMPORT_NAMES = {name: name.replace("-", "_") for name in DEPENDENCIES}

# Importing the losses may cost this share of what importing torch costs: 50 ms where that takes 1.2 s.
SHARE_OF_TORCH = 0.04

REFUSE = """
import importlib.machinery, sys
refused = set(json.loads(sys.argv[1]))
class OnlyDeclared:
    "Finds what the path finder finds, except what this distribution does not declare."
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in refused:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)
    @staticmethod
    def find_distributions(*args):
        "Some ask for their own version this way."
        return importlib.machinery.PathFinder.find_distributions(*args)
finders = [f for f in sys.meta_path if f in (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)]
sys.meta_path[:] = [*finders, OnlyDeclared]
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build every distribution as a release would; by name."""
    folder = tmp_path_factory.mktemp("wheels")
    found = {}
    for project in PROJECTS:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        wheel = max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)
        found[metadata(wheel)["Name"]] = wheel
    return found


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every wheel unpacked into one folder, as pip would."""
    folder = tmp_path_factory.mktemp("site")
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def read(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(ending)]
        return archive.read(names[0]).decode() if names else ""


def metadata(wheel: Path) -> email.message.Message:
    return email.message_from_string(read(wheel, ".dist-info/METADATA"))


def requirements(lines: Iterable[str], extra: str = "") -> set[str]:
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name) for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})}


def closure(names: Iterable[str], ours: dict[str, Path]) -> set[str]:
    """Everything that pip would install for these distributions, without extras."""
    seen: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata(ours[name]).get_all("Requires-Dist") if name in ours else distribution(name).requires
        except PackageNotFoundError:
            continue  # needed on other platforms only
        waiting += requirements(lines or [])
    return seen


def undeclared(name: str, ours: dict[str, Path]) -> set[str]:
    """Top-level modules of this environment that an installation of ``name`` alone would not have."""
    allowed = closure([name], ours)
    # editable installs put only a .pth file and no import name into the environment's metadata
    owners = {**packages_distributions(), **{IMPORT_NAMES[other]: [other] for other in ours}}
    return {
        module
        for module, distributions in owners.items()
        if allowed.isdisjoint(map(canonicalize_name, distributions)) and module not in sys.stdlib_module_names
    }


def run_isolated(code: str, site: Path, *arguments: str) -> str:
    """Run code that sees the unpacked wheels, not the checkout."""
    program = f"import json, sys; sys.path.insert(0, {str(site)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=300, cwd=site
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_distribution_stands_in_the_table(wheels: dict[str, Path]) -> None:
    assert wheels.keys() == DEPENDENCIES.keys() == EXTRAS.keys()


def test_dependencies_are_those_of_the_table(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        lines = metadata(wheel).get_all("Requires-Dist") or []
        assert requirements(lines) == DEPENDENCIES[name], name
        assert set(metadata(wheel).get_all("Provides-Extra") or []) == EXTRAS[name], name
        assert all(" @ " not in line for line in lines), f"{name}: a wheel may not name a place to download from"


def test_versions_move_in_lockstep(wheels: dict[str, Path]) -> None:
    versions = {metadata(wheel)["Version"] for wheel in wheels.values()}
    assert len(versions) == 1
    pins = [
        line
        for wheel in wheels.values()
        for line in metadata(wheel).get_all("Requires-Dist") or []
        if line.startswith("limbeck-")
    ]
    assert len(pins) == len(wheels) - 1
    assert all(line.endswith(f"=={next(iter(versions))}") for line in pins), pins


def test_wheels_are_whole(wheels: dict[str, Path]) -> None:
    """Every source, config and metafile is in; nothing else is."""
    for project in PROJECTS:
        source = next(path for path in (project / "src").iterdir() if path.is_dir())
        wheel = wheels[source.name.replace("_", "-")]
        expected = {
            path.relative_to(source.parent).as_posix()
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        with zipfile.ZipFile(wheel) as archive:
            carried = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert carried == expected
        assert f"{source.name}/py.typed" in carried


def test_wheels_carry_the_licence(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        assert read(wheel, ".dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8"), name


def test_entry_points_lead_into_the_wheel(wheels: dict[str, Path], installed: Path) -> None:
    groups = set()
    for wheel in wheels.values():
        parser = configparser.ConfigParser()
        parser.read_string(read(wheel, ".dist-info/entry_points.txt"))
        for group in parser.sections():
            for value in parser[group].values():
                groups.add(group)
                place = installed.joinpath(*value.partition(":")[0].split("."))
                assert place.is_dir() or place.with_suffix(".py").is_file(), f"{group}: {value}"
    assert {"console_scripts", "limbeck.configs"} <= groups


@pytest.mark.parametrize("name", sorted(DEPENDENCIES))
def test_imports_only_what_it_declares(name: str, wheels: dict[str, Path], installed: Path) -> None:
    """With everything else in this environment hidden, all modules of the package import; its face is complete.

    A file that stands for one framework may say instead how to install it.
    """
    code = REFUSE + (
        "import importlib, pkgutil\n"
        "face = importlib.import_module(sys.argv[2])\n"
        "for name in getattr(face, '__all__', ()): getattr(face, name)\n"
        "names = [m.name for m in pkgutil.walk_packages(face.__path__, sys.argv[2] + '.')]\n"
        "names = [n for n in names if '.configs.' not in n and not n.endswith('__main__')]\n"
        "from limbeck_core.errors import MissingDependency\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except MissingDependency as error: assert 'pip install' in str(error), error\n"
        "print(json.dumps([face.__file__, len(names), sorted({n.partition('.')[0] for n in sys.modules})]))\n"
    )
    refused = undeclared(name, wheels)
    assert "pytest" in refused, "the hook would hide nothing"
    file, count, loaded = json.loads(
        run_isolated(code, installed, json.dumps(sorted(refused)), IMPORT_NAMES[name]).splitlines()[-1]
    )
    assert Path(file).is_relative_to(installed), "the checkout was imported instead of the wheel"
    assert count >= 1
    assert set(loaded) & refused == set()


def test_losses_load_torch_alone_and_quickly(installed: Path) -> None:
    """The best of three tries, by processor time in one process: a machine that does other things too slows both."""
    code = (
        "import time\n"
        "start = time.process_time(); import torch; torch_alone = time.process_time() - start\n"
        "before = set(sys.modules); start = time.process_time()\n"
        "import limbeck_core.functional, limbeck_core.losses\n"
        "share = (time.process_time() - start) / torch_alone\n"
        "new = {n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(json.dumps([share, sorted(new), [m for m in ('mmengine', 'cv2', 'matplotlib') if m in sys.modules]]))\n"
    )
    best = float("inf")
    for _ in range(3):
        share, new, heavy = json.loads(run_isolated(code, installed).splitlines()[-1])
        assert heavy == []
        assert new == ["limbeck_core"]
        best = min(best, share)
        if best < SHARE_OF_TORCH:
            break
    assert best < SHARE_OF_TORCH


def test_importing_the_face_loads_nothing_and_prints_nothing(installed: Path) -> None:
    code = "import limbeck_core; print(json.dumps([n for n in ('torch', 'mmengine', 'numpy') if n in sys.modules]))"
    assert run_isolated(code, installed).splitlines() == ["[]"]


def test_versions_agree_with_the_face_and_the_citation_file() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("version:"))
    assert {cited, limbeck_core.__version__} == {distribution(name).version for name in DEPENDENCIES}
