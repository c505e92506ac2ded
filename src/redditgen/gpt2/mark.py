"""What a run's `redditgen.json` says of it, as a value. A run without the file was not made by redditgen."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from redditgen import markup
from redditgen.errors import InputError
from redditgen.markup import Record
from redditgen.output import whole

COMPACT, LITERAL = "compact", "literal"
NO_RECORDS = "none"  # of a run that learned from plain text


@dataclass(frozen=True)
class Mark:
    """What `redditgen.json` says of a run: how its records were tokenized, and what stood in them.

    `sections` is None where nobody knows them, and () where the records have no marks.
    """

    record_tokens: str = LITERAL
    model: str = ""
    sections: tuple[str, ...] | None = None
    categories: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Mark":
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf8"))
            sections = content["sections"]
            mark = cls(**{**content, "sections": None if sections is None else tuple(sections)})
            if not isinstance(mark.categories, dict):
                raise TypeError("categories must be an object")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: is not what redditgen writes ({error}); delete it if the run is foreign"
            ) from error
        if mark.record_tokens not in (kinds := (COMPACT, LITERAL, NO_RECORDS)):
            raise InputError(f"{path}: record_tokens must be one of {', '.join(kinds)}, not {mark.record_tokens!r}")
        return mark

    def opening(self) -> str:
        """How a text of the run begins if nothing is asked of it: as its records do, if it has learned records."""
        if self.record_tokens == NO_RECORDS:
            return ""
        return markup.prompt(Record(), next(iter(self.sections or ()), ""))

    def save(self, path: Path) -> None:
        with whole(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", encoding="utf8")
