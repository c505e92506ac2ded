"""Sidecars: beside each output what it was made of, by which `--skip-existing` knows it again.

A sidecar is written before its output has its name, so that no output is without one. Until then it belongs to none,
or to the output that is about to be replaced; so it holds the hash of its own.
"""

import dataclasses
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redditgen import __version__
from redditgen.files import untrusted
from redditgen.files.atomic import atomic_write, file_sha256
from redditgen.files.locks import delete_leftover_folder

_BYTES = 1 << 24  # of a sidecar
IGNORED_SETTINGS = ("out", "overwrite", "skip_existing")  # settings that leave an output as it is

_log = logging.getLogger(__name__)


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".meta.json")


def write_sidecar(
    path: Path, settings: Any, *, inputs: Iterable[Path], written: Path | None = None, **facts: Any
) -> None:
    """Write `<path>.meta.json`: settings (a dataclass), the inputs' hashes, the version, and whatever else is known.

    `written` is the file that the output is in until it has its name, or after that.
    """
    content = {
        **_made_of(settings, inputs),
        **({"sha256": file_sha256(written)} if written else {}),
        **facts,
    }
    with atomic_write(sidecar_path(path)) as temporary:
        text = json.dumps(content, indent=2, default=str, ensure_ascii=False) + "\n"
        # A name that is no UTF-8 comes as halves of surrogate pairs, which JSON can hold as it escapes them.
        temporary.write_text(text, encoding="utf8", errors="backslashreplace")


def input_hashes(path: Path) -> dict[str, str]:
    """Those of the inputs, by their names, that a sidecar tells; none where there is no sidecar."""
    found: dict[str, str] = _read(path).get("inputs", {})
    return found


def find_up_to_date(
    path: Path,
    settings: Any,
    *,
    inputs: Iterable[Path],
    ignoring: Collection[str],
    facts: Mapping[str, Any] = MappingProxyType({}),
    written: Path | None = None,
    sidecar: Path | None = None,
) -> dict[str, Any] | None:
    """What the sidecar says of an output that is there, whole, and made of the same; None, said why, of any other.

    Settings of the names in `but` may differ, and `facts` of the sidecar may not. `written` and `sidecar` are the files
    that are looked at where they are not `path` and the one beside it. What a kill left behind such an output goes.
    """
    written = written or path
    if not written.exists():
        return None
    found = _read(sidecar or sidecar_path(path))
    if difference := _difference(found, {**_made_of(settings, inputs), **facts}, settings, ignoring, written):
        _log.warning("%s: not skipped, since %s", path, difference)
        return None
    delete_leftover_folder(path)
    _log.info("%s: is there already, made of the same; skipped", path)
    return found


def _made_of(settings: Any, inputs: Iterable[Path]) -> dict[str, Any]:
    return {
        "redditgen": __version__,
        "command": type(settings).__name__.removesuffix("Settings").lower(),
        "settings": dataclasses.asdict(settings),
        "inputs": {str(name): file_sha256(name) for name in inputs},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = untrusted.read_json(path, _BYTES)
    except (OSError, ValueError):
        return {}
    is_complete = isinstance(found, dict) and all(isinstance(found.get(name), dict) for name in ("settings", "inputs"))
    return found if is_complete else {}


def _difference(
    found: Mapping[str, Any], wanted: Mapping[str, Any], settings: Any, ignoring: Collection[str], written: Path
) -> str | None:
    if not found:
        return "no sidecar says what it was made of"
    if difference := next(_differences(found, json.loads(json.dumps(wanted, default=str)), settings, ignoring), None):
        return difference
    is_the_same = "sha256" not in found or found["sha256"] == file_sha256(written)
    return None if is_the_same else "it has changed since it was made"


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], settings: Any, ignoring: Collection[str]
) -> Iterator[str]:
    """In what a sidecar differs from what is wanted, each as the end of a sentence."""
    for field in dataclasses.fields(settings):
        before, now = found["settings"].get(field.name), wanted["settings"][field.name]
        if field.name not in ignoring and before != now:
            yield f"{field.metadata['flag']} was {_shown(before)} and is {_shown(now)}"
    for name in found["inputs"] | wanted["inputs"]:
        if found["inputs"].get(name) != wanted["inputs"].get(name):
            yield f"{name} has changed"
    for name in wanted.keys() - {"command", "settings", "inputs"}:
        if found.get(name) != wanted[name]:
            yield f"{name} was {_shown(found.get(name))} and is {_shown(wanted[name])}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
