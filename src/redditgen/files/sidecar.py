"""Sidecars: the file `<output>.meta.json` next to an output records the settings and inputs that it was written from.

By its sidecar, `--skip-existing` recognizes an output that is up to date. A sidecar is written before its output is
renamed to its final name, so that no output is ever without one. A kill between the two leaves the sidecar without an
output, or with the older output that was to be replaced; so the sidecar also holds the SHA-256 of its own output.
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
from redditgen.files.locks import delete_leftover_lock_folder

_MAX_BYTES = 1 << 24  # the largest sidecar that is read
IGNORED_SETTINGS = ("out", "overwrite", "skip_existing")  # settings that do not change an output's content

_log = logging.getLogger(__name__)


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".meta.json")


def write_sidecar(
    path: Path, settings: Any, *, inputs: Iterable[Path], written: Path | None = None, **facts: Any
) -> None:
    """Write the sidecar of an output: settings (a dataclass), the inputs' hashes, redditgen's version, and `facts`.

    `written` is the file that holds the output's content now, whose hash is recorded: a temporary one or `path` itself.
    Raises InputError where an input can't be read or the sidecar can't be written.
    """
    content = {
        **_origin(settings, inputs),
        **({"sha256": file_sha256(written)} if written else {}),
        **facts,
    }
    with atomic_write(sidecar_path(path)) as temporary:
        text = json.dumps(content, indent=2, default=str, ensure_ascii=False) + "\n"
        # Python represents a file name that is not UTF-8 with lone surrogates. backslashreplace writes them as \udcXX,
        # which are escapes of JSON too.
        temporary.write_text(text, encoding="utf8", errors="backslashreplace")


def input_hashes(path: Path) -> dict[str, str]:
    """Return the hashes of the inputs, by file name, in the sidecar at `path`; empty where it can't be read."""
    hashes: dict[str, str] = _read_sidecar(path).get("inputs", {})
    return hashes


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
    """Return the content of an output's sidecar if the output exists and is up to date; or else None.

    An output is up to date if its sidecar has the same settings, apart from those named in `ignoring`, the same hashes
    of inputs, the same `facts` and version of redditgen, and the output's own hash. Logs why an existing output is not.
    `written` is the output's file where it is not `path`, `sidecar` the sidecar where it is not next to `path`. Deletes
    the lock folder that a killed process may have left next to an output that is up to date.

    Raises InputError where an input or the output can't be read.
    """
    written = written or path
    if not written.exists():
        return None
    saved = _read_sidecar(sidecar or sidecar_path(path))
    if difference := _first_difference(saved, {**_origin(settings, inputs), **facts}, settings, ignoring, written):
        _log.warning("%s: not skipped, since %s", path, difference)
        return None
    delete_leftover_lock_folder(path)
    _log.info("%s: is there already, made of the same; skipped", path)
    return saved


def _origin(settings: Any, inputs: Iterable[Path]) -> dict[str, Any]:
    """Return the part of a sidecar that follows from settings and inputs."""
    return {
        "redditgen": __version__,
        "command": type(settings).__name__.removesuffix("Settings").lower(),
        "settings": dataclasses.asdict(settings),
        "inputs": {str(name): file_sha256(name) for name in inputs},
    }


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Return the content of a sidecar; {} where it is missing, broken or incomplete."""
    try:
        saved = untrusted.read_json(path, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    is_complete = isinstance(saved, dict) and all(isinstance(saved.get(name), dict) for name in ("settings", "inputs"))
    return saved if is_complete else {}


def _first_difference(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], settings: Any, ignoring: Collection[str], written: Path
) -> str | None:
    """Return why an output is not up to date, as the end of a sentence; None if it is."""
    if not saved:
        return "no sidecar says what it was made of"
    if difference := next(_differences(saved, json.loads(json.dumps(wanted, default=str)), settings, ignoring), None):
        return difference
    is_unchanged = "sha256" not in saved or saved["sha256"] == file_sha256(written)
    return None if is_unchanged else "it has changed since it was made"


def _differences(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], settings: Any, ignoring: Collection[str]
) -> Iterator[str]:
    """Yield the differences between the content of a sidecar and the wanted one, each as the end of a sentence."""
    for field in dataclasses.fields(settings):
        before, now = saved["settings"].get(field.name), wanted["settings"][field.name]
        if field.name not in ignoring and before != now:
            yield f"{field.metadata['flag']} was {_format_json(before)} and is {_format_json(now)}"
    for name in saved["inputs"] | wanted["inputs"]:
        if saved["inputs"].get(name) != wanted["inputs"].get(name):
            yield f"{name} has changed"
    for name in wanted.keys() - {"command", "settings", "inputs"}:
        if saved.get(name) != wanted[name]:
            yield f"{name} was {_format_json(saved.get(name))} and is {_format_json(wanted[name])}"


def _format_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
