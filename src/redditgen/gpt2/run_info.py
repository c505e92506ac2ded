"""What a run's `redditgen.json` says of it, as a value. A run without the file was not made by redditgen."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from redditgen.errors import InputError
from redditgen.files import untrusted
from redditgen.files.atomic import atomic_write
from redditgen.titles.record import SECTIONS, Record, build_prompt

COMPACT_TOKENS, LITERAL_TOKENS = "compact", "literal"
NO_RECORDS = "none"  # of a run that learned from plain text
LOSS_ON_RECORD, LOSS_ON_TITLE = "record", "title"

_BYTES = 1 << 24  # of the file, which names every category
_COUNT = 1 << 53  # of a category's records; floats are whole up to it


@dataclass(frozen=True)
class RunInfo:
    """What `redditgen.json` says of a run: how its records were tokenized, what stood in them, what of each it learned.

    `sections` is None where nobody knows them, and () where the records have no marks; `loss_on` is None where nobody
    knows it.
    """

    record_tokens: str = LITERAL_TOKENS
    model: str = ""
    sections: tuple[str, ...] | None = None
    categories: dict[str, int] = field(default_factory=dict)
    loss_on: str | None = None  # RECORD or TITLE

    @classmethod
    def load(cls, path: Path) -> "RunInfo":
        if not path.exists():
            return cls()
        try:
            content = untrusted.read_json(path, _BYTES)
            sections = content["sections"]
            run_info = cls(**{**content, "sections": None if sections is None else tuple(sections)})
            run_info._check()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: is not what redditgen writes ({error}); delete it if the run is foreign"
            ) from error
        for name, known in (
            ("record_tokens", (COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS)),
            ("loss_on", (None, LOSS_ON_RECORD, LOSS_ON_TITLE)),
        ):
            if (found := getattr(run_info, name)) not in known:
                raise InputError(f"{path}: {name} must be one of {', '.join(filter(None, known))}, not {found!r}")
        return run_info

    def _check(self) -> None:
        """Raise ValueError or TypeError where it says what no run can have."""
        if self.sections and (unknown := [name for name in self.sections if name not in SECTIONS]):
            raise ValueError(f"there is no section {unknown[0]!r}")
        counts = self.categories.values() if isinstance(self.categories, dict) else [None]
        if not all(type(count) is int and 0 < count < _COUNT for count in counts):
            raise TypeError("categories must be an object of positive whole numbers")
        if not isinstance(self.model, str):
            raise TypeError("model must be a text")

    @property
    def begins_records(self) -> bool:
        """Whether the run has learned what a record begins with, and not only to go on from there."""
        return self.loss_on != LOSS_ON_TITLE

    def opening(self, category: str | None = None) -> str:
        """How a text of the run begins if nothing is asked of it: as records do, of `category` if it cannot do that."""
        if self.record_tokens == NO_RECORDS:
            return ""
        if self.begins_records or not self.sections:
            return build_prompt(Record(), next(iter(self.sections or ()), ""))
        return self.prompt(category, ())

    def prompt(self, category: str | None, keywords: Iterable[str]) -> str:
        """A record up to its title, as far as the run's records have such sections."""
        in_records = self.sections is None or "keywords" in self.sections
        return build_prompt(Record(category=category, keywords=" ".join(keywords) if in_records else None), "title")

    def draw_category(self, rng: Random) -> str | None:
        """A category of the run's, as often as it stood in its records."""
        if not self.categories:
            return None
        return rng.choices(list(self.categories), weights=list(self.categories.values()))[0]

    def save(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", encoding="utf8")
