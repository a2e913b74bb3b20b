"""Hold losses against golden vectors of the reference implementations: value and every gradient.

``limbeck conform DIR`` prints one line per vector and exits with 1 on any miss. Packages add adapters through the
entry-point group ``limbeck.conformance``, each entry naming a mapping from item name to adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from limbeck_core.conformance import contrast, distributions, features, logits, relations, schedules
from limbeck_core.conformance.harness import Adapter, GoldenCase, Verdict, compare_case, read_case
from limbeck_core.errors import ConfigError

ENTRY_POINT_GROUP = "limbeck.conformance"

CORE_ADAPTERS: dict[str, Adapter] = {
    **logits.ADAPTERS,
    **distributions.ADAPTERS,
    **features.ADAPTERS,
    **relations.ADAPTERS,
    **contrast.ADAPTERS,
    **schedules.ADAPTERS,
}

__all__ = [
    "CORE_ADAPTERS",
    "Adapter",
    "GoldenCase",
    "Verdict",
    "compare_case",
    "conform",
    "installed_adapters",
    "read_case",
]


def installed_adapters() -> dict[str, Adapter]:
    """Return the adapters of core and of every installed package, by item name."""
    adapters = dict(CORE_ADAPTERS)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        mapping: Mapping[str, Adapter] = entry.load()
        clashes = adapters.keys() & mapping.keys()
        if clashes:
            raise ConfigError(f"entry point {entry.value} redefines the conformance items {sorted(clashes)}")
        adapters.update(mapping)
    return adapters


def conform(
    directory: Path, *, only: Iterable[str] = (), adapters: Mapping[str, Adapter] | None = None
) -> tuple[list[Verdict], list[str]]:
    """Compare every golden vector in a folder.

    Args:
        directory: Folder of ``NAME__cK.npz`` files.
        only: Item names to compare; empty means all files found.
        adapters: Adapters by name; ``None`` takes :func:`installed_adapters`.

    Returns:
        The verdicts, in order of name and case, and the names in the folder for which no adapter is known. With
        ``only``, a name without adapter or without file is a failed verdict instead.

    Raises:
        ConfigError: if the folder does not exist or holds no golden vector.
    """
    names = list(dict.fromkeys(only))
    if adapters is not None:
        known = adapters
    elif names and set(names) <= CORE_ADAPTERS.keys():
        known = CORE_ADAPTERS  # packages bring their frameworks along, which core's own losses do not need
    else:
        known = installed_adapters()
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a folder of golden vectors NAME__cK.npz")
    files: dict[str, list[Path]] = {}
    for path in directory.glob("*__c*.npz"):
        files.setdefault(path.stem.rpartition("__c")[0], []).append(path)
    if not files:
        raise ConfigError(f"{directory} holds no file NAME__cK.npz")
    names = names or sorted(files)
    verdicts, unknown = [], []
    for name in names:
        if name not in known or name not in files:
            reason = "no adapter is installed for this name" if name not in known else f"no file {name}__cK.npz"
            if only:
                verdicts.append(Verdict(name, 0, problems=[reason]))
            else:
                unknown.append(name)
            continue
        for path in sorted(files[name], key=lambda p: int(p.stem.rpartition("__c")[2])):
            verdicts.append(compare_case(read_case(path), known[name]))
    return verdicts, unknown
