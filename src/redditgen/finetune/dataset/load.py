"""Loads the dataset of a run: files of records or of plain text, tokenized and split into training and held-out parts.

The suffix and the content of each file decide what it is: text with records in it, a CSV of one column, JSONL of
sections, gpt-2-simple's `.npz` of tokens, or else plain text. A run is trained on records one by one, and on plain text
as one stream of tokens; the gpt-2-simple engine takes records as such a stream too.
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

MAX_HELD_OUT = 2000  # records that are measured; more are held out, but not kept

_log = logging.getLogger(__name__)


def read_dataset(settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer, context: int) -> Dataset:
    """Read the settings' dataset for a run with this run info and a model with a context of `context` tokens.

    Raises MissingError or InputError naming the file, and UsageError where the run was trained on another kind of text
    or the settings don't fit the kind of this one.
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
        return _plain_text_dataset(settings, paths, run_info, tokenizer, context)
    return _record_dataset(settings, paths, run_info, tokenizer, context)


def read_held_out_records(settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer) -> list[Record]:
    """Return the records that finetuning with these settings is measured on, as `read_dataset` holds them out.

    Raises MissingError or InputError naming the file, and UsageError for settings that don't fit the records.
    """
    splitter = _RecordSplitter(settings, run_info, tokenizer)
    paths = find_files(settings.val or settings.dataset)
    if not any(map(has_keyword_pools, paths)):
        _refuse_draw_settings(settings)
    if settings.val is None:
        for path in paths:
            if not has_records(path, tokenizer):
                raise InputError(f"{path}: holds no record to measure on; {MADE_BY}")
        for _ in splitter.training_records(
            track(_read_records(paths, tokenizer), f"reading {settings.dataset}", unit="records")
        ):
            pass
    return splitter.held_out


def _training_files(settings: FinetuneSettings) -> list[Path]:
    """Return the dataset's files without those of --val, which may be in the same folder.

    Raises UsageError where no other file is left.
    """
    paths = find_files(settings.dataset)
    if settings.val is None:
        return paths
    held_out = {path.resolve() for path in find_files(settings.val)}
    others = [path for path in paths if path.resolve() not in held_out]
    if not others:
        raise UsageError(f"--val: {settings.val} is the dataset itself; name another file, or leave it out")
    return others


def _plain_text_dataset(
    settings: FinetuneSettings, paths: list[Path], run_info: RunInfo, tokenizer: Tokenizer, context: int
) -> Dataset:
    if settings.val:
        raise UsageError(f"--val: {settings.dataset} is plain text, whose end is held out; use --val-fraction")
    if settings.loss_on == LOSS_ON_TITLE:
        raise UsageError(f"--loss-on title: {settings.dataset} is plain text, which has no titles; leave it out")
    _refuse_draw_settings(settings)
    _log.warning("%s: holds no record, so it is learned as plain text", settings.dataset)
    window = min(settings.window, context)
    train, held_out = read_token_streams(settings, paths, tokenizer, window, at_most=MAX_HELD_OUT)
    return Dataset(settings.dataset, train, held_out, replace(run_info, record_tokens=NO_RECORDS, sections=()))


def _record_dataset(
    settings: FinetuneSettings, paths: list[Path], run_info: RunInfo, tokenizer: Tokenizer, context: int
) -> Dataset:
    splitter = _RecordSplitter(settings, run_info, tokenizer)
    train_records = splitter.training_records(
        track(_read_records(paths, tokenizer), f"reading {settings.dataset}", unit="records")
    )
    train: Examples | DynamicExamples
    if any(map(has_keyword_pools, paths)):
        records = tuple(train_records)
        train = DynamicExamples(
            records, tokenizer, run_info.record_tokens, context, settings.seed, *settings.keyword_range
        )
    else:
        _refuse_draw_settings(settings)
        train = tokenize_records(train_records, tokenizer, run_info.record_tokens, context)
    splitter.check(len(train))
    _warn_of_cut_records(settings, train, context)
    held_out = tokenize_records(splitter.held_out, tokenizer, run_info.record_tokens, context)
    return Dataset(settings.dataset, train, held_out, splitter.run_info(), splitter.titles)


def _read_records(paths: list[Path], tokenizer: Tokenizer) -> Iterator[Record]:
    return (record for path in paths for record in records_in_file(path, tokenizer))


class _RecordSplitter:
    """Splits records into those to train on and those held out, and counts them, while they are read."""

    def __init__(self, settings: FinetuneSettings, run_info: RunInfo, tokenizer: Tokenizer) -> None:
        self.held_out: list[Record] = []  # the first MAX_HELD_OUT, each with one draw of keywords
        self.titles: dict[str, None] = {}  # of all records, in the order they were read
        self._settings, self._run_info = settings, run_info
        self._counts: Counter[str] = Counter()
        self._loss_on = LOSS_ON_RECORD if settings.engine == "gpt-2-simple" else settings.loss_on or run_info.loss_on
        self._sections = set(run_info.sections or ())
        self._categories: Counter[str] = Counter()
        self._fraction = 0.0 if settings.val else settings.val_fraction
        self._val_texts = frozenset(self._hold_out_all(settings.val, tokenizer) if settings.val else ())

    def training_records(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records to train on; those held out are added to `held_out`."""
        for record in self._with_titles_collected(records):
            self._sections |= {name for name in SECTIONS if record.has_sections and getattr(record, name) is not None}
            if record.category is not None:
                self._categories[record.category] += 1
            self._counts["without keywords"] += self._may_lack_keywords(record)
            if self._is_for_training(record):
                yield record

    def _may_lack_keywords(self, record: Record) -> bool:
        """Return whether the record has no keywords, or a draw of them may be empty."""
        return not record.keywords or (isinstance(record, KeywordPool) and self._settings.keyword_range[0] == 0)

    def _is_for_training(self, record: Record) -> bool:
        text = _deciding_text(record)
        if text and text in self._val_texts:
            self._counts["in both"] += 1
            return False
        if is_held_out(text, self._fraction, self._settings.seed):
            self._hold_out(record)
            return False
        if record.title is None:
            self._counts["without title"] += 1
            return self._loss_on != LOSS_ON_TITLE
        return True

    def _hold_out_all(self, path: Path, tokenizer: Tokenizer) -> Iterator[str]:
        """Hold out all records of --val, and yield their texts."""
        for file in find_files(path):
            if not has_records(file, tokenizer):
                raise InputError(f"{file}: holds no record to measure on (--val); {MADE_BY}")
            for record in self._with_titles_collected(records_in_file(file, tokenizer)):
                self._hold_out(record)
                yield _deciding_text(record)

    def _with_titles_collected(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, and add their titles to `titles`."""
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
            record = record.draw(Random(f"{self._settings.seed} held out {number}"), *self._settings.keyword_range)
        self.held_out.append(record)

    def check(self, training_count: int) -> None:
        """Log how many records there are and how many are left out; raise InputError where none is left to train on."""
        settings, counts = self._settings, self._counts
        if counts["in both"]:
            _log.warning(
                "%s: %d records left out whose titles %s holds too", settings.dataset, counts["in both"], settings.val
            )
        if counts["without title"] and self._loss_on == LOSS_ON_TITLE:
            _log.warning(
                "%s: %d records without a title left out (--loss-on)", settings.dataset, counts["without title"]
            )
        if not training_count:
            raise InputError(f"{settings.dataset}: {self._reason_for_none()}")
        if not counts["held out"] and settings.val_fraction:
            _log.warning("%s: too few titles to hold any out, so no held-out loss is measured", settings.dataset)
        _log.info("%s: %d records to train on, %d held out", settings.dataset, training_count, counts["held out"])

    def _reason_for_none(self) -> str:
        if self._counts["without title"] and self._loss_on == LOSS_ON_TITLE:
            return "holds no title to learn; leave out --loss-on title"
        if self._settings.val:
            return "every title stands in --val too and none is left to train on; name another file"
        return "every title is held out and none left to train on; lower --val-fraction"

    def run_info(self) -> RunInfo:
        """Return the run info with the sections and categories of the records read, and the loss to train with."""
        sections = tuple(name for name in SECTIONS if name in self._sections)
        categories = self._run_info.categories | self._categories
        loss_on = self._loss_on or self._default_loss()
        return replace(self._run_info, sections=sections, categories=categories, loss_on=loss_on)

    def _default_loss(self) -> str:
        """Return the loss to train with where neither the settings nor the run name one.

        A run with loss on the title alone writes better titles, but can't begin a record by itself: each prompt has to
        hold all sections before the title. A prompt without keywords then looks like a record without keywords, so the
        dataset must hold some of these.
        """
        return (
            LOSS_ON_TITLE if self._counts["without keywords"] and not self._counts["without title"] else LOSS_ON_RECORD
        )


def _deciding_text(record: Record) -> str:
    """Return the text that decides whether a record is held out: its title, or else its body."""
    return (record.body if record.title is None else record.title) or ""


def _refuse_draw_settings(settings: FinetuneSettings) -> None:
    """Raise UsageError for settings of keyword draws, which need records with all keywords of their titles."""
    for flag, given in (("--min-keywords", settings.min_keywords), ("--max-keywords", settings.max_keywords)):
        if given is not None:
            raise UsageError(
                f"{flag}: {settings.dataset} was not made by encode --dynamic, so nothing is drawn from it"
            )


def _warn_of_cut_records(settings: FinetuneSettings, train: Examples | DynamicExamples, context: int) -> None:
    cut = train.cut if isinstance(train, Examples) else train.count_too_long()
    if cut:
        _log.warning("%s: %d records are longer than %d tokens and were cut", settings.dataset, cut, context)
