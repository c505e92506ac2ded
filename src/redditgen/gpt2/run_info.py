"""The run info, which `redditgen.json` in a run holds: how its records were tokenized and what it was trained on.

The keys of the JSON object are the fields of RunInfo. A run without the file was not made by redditgen.
"""

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
NO_RECORDS = "none"  # for a run that was trained on plain text
LOSS_ON_RECORD, LOSS_ON_TITLE = "record", "title"

_MAX_FILE_BYTES = 1 << 24  # of redditgen.json, which lists every category
_MAX_COUNT = 1 << 53  # records of a category; up to it a float holds every whole number


@dataclass(frozen=True)
class RunInfo:
    """How a run's records were tokenized, what they contained, and what part of each the loss was computed on.

    `record_tokens` is COMPACT_TOKENS, LITERAL_TOKENS or NO_RECORDS. `model` names the model that the training started
    from. `sections` is None where they are unknown, and () where the records have no delimiters. `categories` counts
    the records of each category. `loss_on` is None where it is unknown.
    """

    record_tokens: str = LITERAL_TOKENS
    model: str = ""
    sections: tuple[str, ...] | None = None
    categories: dict[str, int] = field(default_factory=dict)
    loss_on: str | None = None  # LOSS_ON_RECORD or LOSS_ON_TITLE

    @classmethod
    def load(cls, path: Path) -> "RunInfo":
        """Read the file; where there is none, return the defaults. Raises InputError where its content is invalid."""
        if not path.exists():
            return cls()
        try:
            content = untrusted.read_json(path, _MAX_FILE_BYTES)
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
            if (value := getattr(run_info, name)) not in known:
                raise InputError(f"{path}: {name} must be one of {', '.join(filter(None, known))}, not {value!r}")
        return run_info

    def _check(self) -> None:
        """Raise ValueError or TypeError where a field has a value that no run can have."""
        if self.sections and (unknown := [name for name in self.sections if name not in SECTIONS]):
            raise ValueError(f"there is no section {unknown[0]!r}")
        counts = self.categories.values() if isinstance(self.categories, dict) else [None]
        if not all(type(count) is int and 0 < count < _MAX_COUNT for count in counts):
            raise TypeError("categories must be an object of positive whole numbers")
        if not isinstance(self.model, str):
            raise TypeError("model must be a text")

    @property
    def learned_record_starts(self) -> bool:
        """Whether the run was trained to write the start of a record, and not only its title."""
        return self.loss_on != LOSS_ON_TITLE

    def opening_prompt(self, category: str | None = None) -> str:
        """Return the prompt for a text whose content is left to the model.

        It is empty for a run on plain text, and a record's start through the first section's delimiter for other runs.
        A run that was trained on titles alone can't write the sections before them: its prompt has `category`, no
        keywords, and ends where the title begins.
        """
        if self.record_tokens == NO_RECORDS:
            return ""
        if self.learned_record_starts or not self.sections:
            return build_prompt(Record(), next(iter(self.sections or ()), ""))
        return self.prompt(category, ())

    def prompt(self, category: str | None, keywords: Iterable[str]) -> str:
        """Return a record's text up to its title, without keywords where the run's records have no such section."""
        has_keywords = self.sections is None or "keywords" in self.sections
        return build_prompt(Record(category=category, keywords=" ".join(keywords) if has_keywords else None), "title")

    def draw_category(self, rng: Random) -> str | None:
        """Draw a category, each as likely as its share of the run's records; None where the run has no categories."""
        if not self.categories:
            return None
        return rng.choices(list(self.categories), weights=list(self.categories.values()))[0]

    def save(self, path: Path) -> None:
        """Write the file; raises InputError where it can't be written."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", encoding="utf8")
