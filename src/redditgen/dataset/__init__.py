"""What a run learns from: files of records or of plain text, tokenized, and split into what is trained on and held out.

Each file is what it looks like: text with records in it, a CSV of one column, JSONL of sections, gpt-2-simple's `.npz`
of tokens, or else plain text. Records are learned one by one. Plain text is one stream; gpt-2-simple takes records as
such a stream too.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from redditgen.dataset.sources import MADE_BY, files, has_records, is_dynamic, records_of
from redditgen.dataset.streams import chunks, streams
from redditgen.draws import Undrawn
from redditgen.errors import InputError, UsageError
from redditgen.gpt2.examples import DynamicExamples, Examples, examples
from redditgen.gpt2.mark import NO_RECORDS, RECORD, TITLE, Mark
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.windows import Stream
from redditgen.markup import SECTIONS, Record
from redditgen.progress import counted
from redditgen.settings import FinetuneSettings
from redditgen.splits import is_held_out

__all__ = ["HELD_OUT_AT_MOST", "Dataset", "chunks", "files", "held_out", "read"]

HELD_OUT_AT_MOST = 2000  # records measured

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Tokens to train on, by record or as a stream, held-out records, and the mark of a run that learns from them.

    `titles` are those of all records, the held-out ones too, each once; there are none in plain text.
    """

    train: Examples | DynamicExamples | Stream
    held_out: Examples
    mark: Mark
    titles: Collection[str] = ()


def read(settings: FinetuneSettings, mark: Mark, tokenizer: Tokenizer, context: int) -> Dataset:
    """Read the settings' dataset for a run of this mark and a model of `context` tokens.

    Raises MissingError or InputError naming the file, and UsageError where the run learned from another kind of text.
    """
    paths = _training_files(settings)
    are_plain = [not has_records(path, tokenizer) for path in paths]
    if any(are_plain) and not all(are_plain):
        plain, other = paths[are_plain.index(True)], paths[are_plain.index(False)]
        raise InputError(f"{settings.dataset}: {other} holds records and {plain} none; finetune on them one by one")
    if mark.sections is not None and all(are_plain) != (mark.record_tokens == NO_RECORDS):
        other_kind = "plain text" if all(are_plain) else "records"
        raise UsageError(f"{settings.dataset}: is {other_kind}, which run {settings.run} never saw; start another run")
    if all(are_plain):
        return _of_plain_text(settings, paths, mark, tokenizer, context)
    return _of_records(settings, paths, mark, tokenizer, context)


def held_out(settings: FinetuneSettings, mark: Mark, tokenizer: Tokenizer) -> list[Record]:
    """The records that a finetuning by these settings is measured on, as `read` holds them out."""
    parts = _Parts(settings, mark, tokenizer)
    paths = files(settings.val or settings.dataset)
    if not any(map(is_dynamic, paths)):
        _refuse_draws(settings)
    if settings.val is None:
        for path in paths:
            if not has_records(path, tokenizer):
                raise InputError(f"{path}: holds no record to measure on; {MADE_BY}")
        for _ in parts.kept(counted(_records(paths, tokenizer), f"reading {settings.dataset}", unit="records")):
            pass
    return parts.held_out


def _training_files(settings: FinetuneSettings) -> list[Path]:
    """The dataset's files but that of the held-out records, which may stand in the same folder."""
    paths = files(settings.dataset)
    if settings.val is None:
        return paths
    held_out = {path.resolve() for path in files(settings.val)}
    others = [path for path in paths if path.resolve() not in held_out]
    if not others:
        raise UsageError(f"--val: {settings.val} is the dataset itself; name another file, or leave it out")
    return others


def _of_plain_text(
    settings: FinetuneSettings, paths: list[Path], mark: Mark, tokenizer: Tokenizer, context: int
) -> Dataset:
    if settings.val:
        raise UsageError(f"--val: {settings.dataset} is plain text, whose end is held out; use --val-fraction")
    if settings.loss_on == TITLE:
        raise UsageError(f"--loss-on title: {settings.dataset} is plain text, which has no titles; leave it out")
    _refuse_draws(settings)
    _log.warning("%s: holds no record, so it is learned as plain text", settings.dataset)
    window = min(settings.window, context)
    train, held_out = streams(settings, paths, tokenizer, window, at_most=HELD_OUT_AT_MOST)
    return Dataset(train, held_out, replace(mark, record_tokens=NO_RECORDS, sections=()))


def _of_records(
    settings: FinetuneSettings, paths: list[Path], mark: Mark, tokenizer: Tokenizer, context: int
) -> Dataset:
    parts = _Parts(settings, mark, tokenizer)
    kept = parts.kept(counted(_records(paths, tokenizer), f"reading {settings.dataset}", unit="records"))
    train: Examples | DynamicExamples
    if any(map(is_dynamic, paths)):
        records = tuple(kept)
        train = DynamicExamples(records, tokenizer, mark.record_tokens, context, settings.seed, *settings.draws)
    else:
        _refuse_draws(settings)
        train = examples(kept, tokenizer, mark.record_tokens, context)
    parts.check(len(train))
    _warn_of_long(settings, train, context)
    held_out = examples(parts.held_out, tokenizer, mark.record_tokens, context)
    return Dataset(train, held_out, parts.mark(), parts.titles)


def _records(paths: list[Path], tokenizer: Tokenizer) -> Iterator[Record]:
    return (record for path in paths for record in records_of(path, tokenizer))


class _Parts:
    """Records parted into those to train on and those held out, and counted, while they are read."""

    def __init__(self, settings: FinetuneSettings, mark: Mark, tokenizer: Tokenizer) -> None:
        self.held_out: list[Record] = []  # the first of them, with one draw of keywords
        self.titles: dict[str, None] = {}  # in the order they came
        self._settings, self._mark = settings, mark
        self._counts: Counter[str] = Counter()
        self._loss_on = RECORD if settings.engine == "gpt-2-simple" else settings.loss_on or mark.loss_on
        self._sections = set(mark.sections or ())
        self._categories: Counter[str] = Counter()
        self._fraction = 0.0 if settings.val else settings.val_fraction
        self._texts = frozenset(self._all_of(settings.val, tokenizer) if settings.val else ())

    def kept(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records to train on."""
        for record in self._noted(records):
            self._sections |= {name for name in SECTIONS if record.marked and getattr(record, name) is not None}
            if record.category is not None:
                self._categories[record.category] += 1
            self._counts["without keywords"] += self._may_lack_keywords(record)
            if self._is_kept(record):
                yield record

    def _may_lack_keywords(self, record: Record) -> bool:
        return not record.keywords or (isinstance(record, Undrawn) and self._settings.draws[0] == 0)

    def _is_kept(self, record: Record) -> bool:
        text = _text(record)
        if text and text in self._texts:
            self._counts["in both"] += 1
            return False
        if is_held_out(text, self._fraction, self._settings.seed):
            self._hold_out(record)
            return False
        if record.title is None:
            self._counts["without title"] += 1
            return self._loss_on != TITLE
        return True

    def _all_of(self, path: Path, tokenizer: Tokenizer) -> Iterator[str]:
        """The texts of the records of --val, each of which is held out."""
        for file in files(path):
            if not has_records(file, tokenizer):
                raise InputError(f"{file}: holds no record to measure on (--val); {MADE_BY}")
            for record in self._noted(records_of(file, tokenizer)):
                self._hold_out(record)
                yield _text(record)

    def _noted(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record.title:
                self.titles[record.title] = None
            yield record

    def _hold_out(self, record: Record) -> None:
        number = self._counts["held out"]
        self._counts["held out"] += 1
        if number >= HELD_OUT_AT_MOST:
            return
        if isinstance(record, Undrawn):
            record = record.drawn(Random(f"{self._settings.seed} held out {number}"), *self._settings.draws)
        self.held_out.append(record)

    def check(self, kept: int) -> None:
        """Say how many records there are; raises InputError where there are none to train on."""
        settings, counts = self._settings, self._counts
        if counts["in both"]:
            _log.warning(
                "%s: %d records left out whose titles %s holds too", settings.dataset, counts["in both"], settings.val
            )
        if counts["without title"] and self._loss_on == TITLE:
            _log.warning(
                "%s: %d records without a title left out (--loss-on)", settings.dataset, counts["without title"]
            )
        if not kept:
            raise InputError(f"{settings.dataset}: {self._why_none()}")
        if not counts["held out"] and settings.val_fraction:
            _log.warning("%s: too few titles to hold any out, so no held-out loss is measured", settings.dataset)
        _log.info("%s: %d records to train on, %d held out", settings.dataset, kept, counts["held out"])

    def _why_none(self) -> str:
        if self._counts["without title"] and self._loss_on == TITLE:
            return "holds no title to learn; leave out --loss-on title"
        if self._settings.val:
            return "every title stands in --val too and none is left to train on; name another file"
        return "every title is held out and none left to train on; lower --val-fraction"

    def mark(self) -> Mark:
        in_order = tuple(name for name in SECTIONS if name in self._sections)
        categories = self._mark.categories | self._categories
        loss_on = self._loss_on or self._usual_loss()
        return replace(self._mark, sections=in_order, categories=categories, loss_on=loss_on)

    def _usual_loss(self) -> str:
        """The title alone is learned better, but such a run begins no record: it has to know what lacks keywords."""
        return TITLE if self._counts["without keywords"] and not self._counts["without title"] else RECORD


def _text(record: Record) -> str:
    """What decides on which side a record stands."""
    return (record.body if record.title is None else record.title) or ""


def _refuse_draws(settings: FinetuneSettings) -> None:
    for flag, given in (("--min-keywords", settings.min_keywords), ("--max-keywords", settings.max_keywords)):
        if given is not None:
            raise UsageError(
                f"{flag}: {settings.dataset} was not made by encode --dynamic, so nothing is drawn from it"
            )


def _warn_of_long(settings: FinetuneSettings, train: Examples | DynamicExamples, context: int) -> None:
    cut = train.cut if isinstance(train, Examples) else train.too_long()
    if cut:
        _log.warning("%s: %d records are longer than %d tokens and were cut", settings.dataset, cut, context)
