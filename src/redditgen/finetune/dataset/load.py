"""What a run learns from: files of records or of plain text, tokenized, and split into what is trained on and held out.

Each file is what it looks like: text with records in it, a CSV of one column, JSONL of sections, gpt-2-simple's `.npz`
of tokens, or else plain text. Records are learned one by one. Plain text is one stream; gpt-2-simple takes records as
such a stream too.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from redditgen.engines.data.dataset import Dataset
from redditgen.engines.data.examples import DynamicExamples, Examples, tokenize_records
from redditgen.errors import InputError, UsageError
from redditgen.finetune.dataset.plain_text import read_token_streams
from redditgen.finetune.dataset.record_files import MADE_BY, find_files, has_keyword_pools, has_records, records_in_file
from redditgen.gpt2.run_info import LOSS_ON_RECORD, LOSS_ON_TITLE, NO_RECORDS, RunInfo
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.runtime.progress import track
from redditgen.settings import FinetuneSettings
from redditgen.titles.keyword_draws import KeywordPool
from redditgen.titles.record import SECTIONS, Record
from redditgen.titles.splits import is_held_out

MAX_HELD_OUT = 2000  # records measured

_log = logging.getLogger(__name__)


def read_dataset(settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer, context: int) -> Dataset:
    """Read the settings' dataset for a run with this run info and a model of `context` tokens.

    Raises MissingError or InputError naming the file, and UsageError where the run learned from another kind of text.
    """
    paths = _training_files(settings)
    are_plain = [not has_records(path, tokenizer) for path in paths]
    if any(are_plain) and not all(are_plain):
        plain, other = paths[are_plain.index(True)], paths[are_plain.index(False)]
        raise InputError(f"{settings.dataset}: {other} holds records and {plain} none; finetune on them one by one")
    if run_info.sections is not None and all(are_plain) != (run_info.record_tokens == NO_RECORDS):
        other_kind = "plain text" if all(are_plain) else "records"
        raise UsageError(f"{settings.dataset}: is {other_kind}, which run {settings.run} never saw; start another run")
    if all(are_plain):
        return _of_plain_text(settings, paths, run_info, tokenizer, context)
    return _of_records(settings, paths, run_info, tokenizer, context)


def read_held_out_records(settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer) -> list[Record]:
    """The records that a finetuning by these settings is measured on, as `read_dataset` holds them out."""
    parts = _RecordSplitter(settings, run_info, tokenizer)
    paths = find_files(settings.val or settings.dataset)
    if not any(map(has_keyword_pools, paths)):
        _refuse_draws(settings)
    if settings.val is None:
        for path in paths:
            if not has_records(path, tokenizer):
                raise InputError(f"{path}: holds no record to measure on; {MADE_BY}")
        for _ in parts.kept(track(_records(paths, tokenizer), f"reading {settings.dataset}", unit="records")):
            pass
    return parts.held_out


def _training_files(settings: FinetuneSettings) -> list[Path]:
    """The dataset's files but that of the held-out records, which may stand in the same folder."""
    paths = find_files(settings.dataset)
    if settings.val is None:
        return paths
    held_out = {path.resolve() for path in find_files(settings.val)}
    others = [path for path in paths if path.resolve() not in held_out]
    if not others:
        raise UsageError(f"--val: {settings.val} is the dataset itself; name another file, or leave it out")
    return others


def _of_plain_text(
    settings: FinetuneSettings, paths: list[Path], run_info: RunInfo, tokenizer: Tokenizer, context: int
) -> Dataset:
    if settings.val:
        raise UsageError(f"--val: {settings.dataset} is plain text, whose end is held out; use --val-fraction")
    if settings.loss_on == LOSS_ON_TITLE:
        raise UsageError(f"--loss-on title: {settings.dataset} is plain text, which has no titles; leave it out")
    _refuse_draws(settings)
    _log.warning("%s: holds no record, so it is learned as plain text", settings.dataset)
    window = min(settings.window, context)
    train, held_out = read_token_streams(settings, paths, tokenizer, window, at_most=MAX_HELD_OUT)
    return Dataset(settings.dataset, train, held_out, replace(run_info, record_tokens=NO_RECORDS, sections=()))


def _of_records(
    settings: FinetuneSettings, paths: list[Path], run_info: RunInfo, tokenizer: Tokenizer, context: int
) -> Dataset:
    parts = _RecordSplitter(settings, run_info, tokenizer)
    kept = parts.kept(track(_records(paths, tokenizer), f"reading {settings.dataset}", unit="records"))
    train: Examples | DynamicExamples
    if any(map(has_keyword_pools, paths)):
        records = tuple(kept)
        train = DynamicExamples(records, tokenizer, run_info.record_tokens, context, settings.seed, *settings.draws)
    else:
        _refuse_draws(settings)
        train = tokenize_records(kept, tokenizer, run_info.record_tokens, context)
    parts.check(len(train))
    _warn_of_long(settings, train, context)
    held_out = tokenize_records(parts.held_out, tokenizer, run_info.record_tokens, context)
    return Dataset(settings.dataset, train, held_out, parts.run_info(), parts.titles)


def _records(paths: list[Path], tokenizer: Tokenizer) -> Iterator[Record]:
    return (record for path in paths for record in records_in_file(path, tokenizer))


class _RecordSplitter:
    """Records parted into those to train on and those held out, and counted, while they are read."""

    def __init__(self, settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer) -> None:
        self.held_out: list[Record] = []  # the first of them, with one draw of keywords
        self.titles: dict[str, None] = {}  # in the order they came
        self._settings, self._run_info = settings, run_info
        self._counts: Counter[str] = Counter()
        self._loss_on = LOSS_ON_RECORD if settings.engine == "gpt-2-simple" else settings.loss_on or run_info.loss_on
        self._sections = set(run_info.sections or ())
        self._categories: Counter[str] = Counter()
        self._fraction = 0.0 if settings.val else settings.val_fraction
        self._texts = frozenset(self._all_of(settings.val, tokenizer) if settings.val else ())

    def kept(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records to train on."""
        for record in self._noted(records):
            self._sections |= {name for name in SECTIONS if record.has_sections and getattr(record, name) is not None}
            if record.category is not None:
                self._categories[record.category] += 1
            self._counts["without keywords"] += self._may_lack_keywords(record)
            if self._is_kept(record):
                yield record

    def _may_lack_keywords(self, record: Record) -> bool:
        return not record.keywords or (isinstance(record, KeywordPool) and self._settings.draws[0] == 0)

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
            return self._loss_on != LOSS_ON_TITLE
        return True

    def _all_of(self, path: Path, tokenizer: Tokenizer) -> Iterator[str]:
        """The texts of the records of --val, each of which is held out."""
        for file in find_files(path):
            if not has_records(file, tokenizer):
                raise InputError(f"{file}: holds no record to measure on (--val); {MADE_BY}")
            for record in self._noted(records_in_file(file, tokenizer)):
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
        if number >= MAX_HELD_OUT:
            return
        if isinstance(record, KeywordPool):
            record = record.draw(Random(f"{self._settings.seed} held out {number}"), *self._settings.draws)
        self.held_out.append(record)

    def check(self, kept: int) -> None:
        """Say how many records there are; raises InputError where there are none to train on."""
        settings, counts = self._settings, self._counts
        if counts["in both"]:
            _log.warning(
                "%s: %d records left out whose titles %s holds too", settings.dataset, counts["in both"], settings.val
            )
        if counts["without title"] and self._loss_on == LOSS_ON_TITLE:
            _log.warning(
                "%s: %d records without a title left out (--loss-on)", settings.dataset, counts["without title"]
            )
        if not kept:
            raise InputError(f"{settings.dataset}: {self._why_none()}")
        if not counts["held out"] and settings.val_fraction:
            _log.warning("%s: too few titles to hold any out, so no held-out loss is measured", settings.dataset)
        _log.info("%s: %d records to train on, %d held out", settings.dataset, kept, counts["held out"])

    def _why_none(self) -> str:
        if self._counts["without title"] and self._loss_on == LOSS_ON_TITLE:
            return "holds no title to learn; leave out --loss-on title"
        if self._settings.val:
            return "every title stands in --val too and none is left to train on; name another file"
        return "every title is held out and none left to train on; lower --val-fraction"

    def run_info(self) -> RunInfo:
        in_order = tuple(name for name in SECTIONS if name in self._sections)
        categories = self._run_info.categories | self._categories
        loss_on = self._loss_on or self._usual_loss()
        return replace(self._run_info, sections=in_order, categories=categories, loss_on=loss_on)

    def _usual_loss(self) -> str:
        """The title alone is learned better, but such a run begins no record: it has to know what lacks keywords."""
        return (
            LOSS_ON_TITLE if self._counts["without keywords"] and not self._counts["without title"] else LOSS_ON_RECORD
        )


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
