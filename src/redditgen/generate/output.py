"""Titles to a file, portion by portion, so that the same command continues after a kill."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from redditgen.errors import UsageError
from redditgen.files.atomic import refuse_existing
from redditgen.files.resume import ResumableOutput, fingerprint, resumable_output
from redditgen.files.rows import check_rows_file
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, write_sidecar
from redditgen.generate.filters import SeenTitles, title_key
from redditgen.generate.prompts import PromptRequests, requests_from_settings
from redditgen.generate.report import counts_for_sidecar, report_counts
from redditgen.generate.rounds import TITLE_COUNT, DrawState
from redditgen.generate.session import Session, choose_seed
from redditgen.generate.title import Title, columns_for_file, format_titles
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import GenerateSettings

# Settings that do not change the bytes of the output.
_NOT_IN_THE_FILE = (*IGNORED_SETTINGS, "resume", "tf1_python", "ray_address")

_log = logging.getLogger(__name__)


def write_titles(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar, and return their number.

    An interrupted call with the same settings is continued, also where it chose a new seed.
    """
    out = settings.out
    if out is None:
        raise UsageError("--out: a file to write is needed here")
    check_rows_file(out, columns_for_file(out))
    session = Session(settings)
    if settings.skip_existing and (before := _find_up_to_date(out, session)):
        return int(before["counts"][TITLE_COUNT])
    refuse_existing(out, settings.overwrite)
    requests = requests_from_settings(settings)
    total = session.check(requests)
    made = fingerprint(settings, session.inputs, ignoring=_NOT_IN_THE_FILE, **session.facts)
    with (
        signals_raise_keyboard_interrupt(),
        resumable_output([out], made, overwrite=settings.overwrite, extra_files=1) as output,
    ):
        title_file = _TitleFile(output, session, out)
        if not output.is_complete:
            title_file.write(requests, total)
            report_counts(settings, total, title_file.state.counts)
            output.finish(title_file.facts)
        counts = counts_for_sidecar(title_file.state.counts)
        made_with = replace(settings, seed=title_file.seed)
        facts = {"counts": counts, **session.facts, "synthetic": True}
        write_sidecar(out, made_with, inputs=session.inputs, written=output.path(0), **facts)
    _log.info("%s: %d titles", out, counts[TITLE_COUNT])
    return counts[TITLE_COUNT]


def _find_up_to_date(out: Path, session: Session) -> dict[str, Any] | None:
    """The sidecar of an output that is up to date, else None; without --seed an output of any seed is."""
    ignoring = (*_NOT_IN_THE_FILE, *(("seed",) if session.settings.seed is None else ()))
    return find_up_to_date(out, session.settings, inputs=session.inputs, ignoring=ignoring, facts=session.facts)


class _TitleFile:
    """The file of titles, and an extra file with a key of each title, a line each, by which duplicates are found."""

    def __init__(self, output: ResumableOutput, session: Session, out: Path) -> None:
        self._output, self._session, self._out = output, session, out
        facts = output.facts
        self.seed = facts["seed"] if facts else choose_seed(session.settings)
        self.state = _state_from_facts(facts)

    @property
    def facts(self) -> dict[str, Any]:
        """What `.NAME.partial/state.json` keeps; its keys are a file format."""
        state = self.state
        return {
            "counts": state.counts,
            "fruitless": state.misses,
            "hopeless": state.exhausted,
            "is_over": state.is_over,
            "seed": self.seed,
        }

    def write(self, requests: PromptRequests, total: int) -> None:
        """Draw and write the portions that are not there yet."""
        output, session, done = self._output, self._session, self.state.counts[TITLE_COUNT]
        if output.steps:
            _log.info("%s: goes on behind %d titles of an interrupted run", self._out, done)
        seen = SeenTitles(output.read(1).split()) if session.is_unique else None
        drawer = session.drawer(total, self.seed, seen, self.state)
        bar = Progress(str(self._out), unit="titles", total=total, done=done)
        with session.open_engine() as write, bar as progress:
            for number, portion in enumerate(session.portions(requests)):
                if self.state.is_over:
                    break
                if number >= output.steps:
                    self._add(list(_counted(session.draw_portion(drawer, write, number, portion), progress)))

    def _add(self, made: list[Title]) -> None:
        text = format_titles(made, self._out, self._session.settings, is_first=not self._output.steps)
        keys = [f"{title_key(title.title)}\n" for title in made] if self._session.is_unique else []
        self._output.write_step([(0, text), (1, "".join(keys))], self.facts)


def _state_from_facts(facts: Mapping[str, Any]) -> DrawState:
    if not facts:
        return DrawState()
    return DrawState(Counter(facts["counts"]), facts["fruitless"], facts["hopeless"], facts["is_over"])


def _counted(made: Iterator[Title], progress: Progress) -> Iterator[Title]:
    for title in made:
        progress.update(1)
        yield title
