"""Writes generated titles to a file, portion by portion, so that the same command continues after it was killed.

Each portion is one step of a resumable output. A second file, which is deleted at the end, keeps the key of each title,
so that a continued command also refuses duplicates of the titles written before.
"""

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
_SETTINGS_WITHOUT_EFFECT = (*IGNORED_SETTINGS, "resume", "tf1_python", "ray_address")

_log = logging.getLogger(__name__)


def write_titles(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar, and return their number.

    Continues an interrupted call with the same settings, with its seed where the settings have none. Raises UsageError
    where `settings.out` is None or has an unknown suffix, OutputExists where the file exists and may not be replaced,
    and InputError where the filters leave no title.
    """
    out = settings.out
    if out is None:
        raise UsageError("--out: a file to write is needed here")
    check_rows_file(out, columns_for_file(out))
    session = Session(settings)
    if settings.skip_existing and (sidecar := _find_up_to_date(out, session)):
        return int(sidecar["counts"][TITLE_COUNT])
    refuse_existing(out, settings.overwrite)
    requests = requests_from_settings(settings)
    total = session.check(requests)
    made_of = fingerprint(settings, session.inputs, ignoring=_SETTINGS_WITHOUT_EFFECT, **session.facts)
    with (
        signals_raise_keyboard_interrupt(),
        resumable_output([out], made_of, overwrite=settings.overwrite, extra_files=1) as output,
    ):
        title_file = _TitleFile(output, session, out)
        if not output.is_complete:
            title_file.write(requests, total)
            report_counts(settings, total, title_file.state.counts)
            output.finish(title_file.facts)
        counts = counts_for_sidecar(title_file.state.counts)
        settings_with_seed = replace(settings, seed=title_file.seed)
        facts = {"counts": counts, **session.facts, "synthetic": True}
        write_sidecar(out, settings_with_seed, inputs=session.inputs, written=output.path(0), **facts)
    _log.info("%s: %d titles", out, counts[TITLE_COUNT])
    return counts[TITLE_COUNT]


def _find_up_to_date(out: Path, session: Session) -> dict[str, Any] | None:
    """Return the sidecar of an output that is up to date, else None. Without --seed, any seed is up to date."""
    ignoring = (*_SETTINGS_WITHOUT_EFFECT, *(("seed",) if session.settings.seed is None else ()))
    return find_up_to_date(out, session.settings, inputs=session.inputs, ignoring=ignoring, facts=session.facts)


class _TitleFile:
    """The file of titles (number 0 of the output), and the file with the key of each title on a line (number 1)."""

    def __init__(self, output: ResumableOutput, session: Session, out: Path) -> None:
        self._output, self._session, self._out = output, session, out
        facts = output.facts
        self.seed = facts["seed"] if facts else choose_seed(session.settings)
        self.state = _state_from_facts(facts)

    @property
    def facts(self) -> dict[str, Any]:
        """The values that `.NAME.partial/state.json` keeps; the keys are a file format."""
        state = self.state
        return {
            "counts": state.counts,
            "fruitless": state.misses,
            "hopeless": state.exhausted,
            "is_over": state.is_over,
            "seed": self.seed,
        }

    def write(self, requests: PromptRequests, total: int) -> None:
        """Draw and write the portions that an earlier call has not written."""
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
                    self._write_portion(list(_count(session.draw_portion(drawer, write, number, portion), progress)))

    def _write_portion(self, titles: list[Title]) -> None:
        text = format_titles(titles, self._out, self._session.settings, is_first=not self._output.steps)
        keys = [f"{title_key(title.title)}\n" for title in titles] if self._session.is_unique else []
        self._output.write_step([(0, text), (1, "".join(keys))], self.facts)


def _state_from_facts(facts: Mapping[str, Any]) -> DrawState:
    if not facts:
        return DrawState()
    return DrawState(Counter(facts["counts"]), facts["fruitless"], facts["hopeless"], facts["is_over"])


def _count(titles: Iterator[Title], progress: Progress) -> Iterator[Title]:
    """Yield the titles, and add each one to the progress."""
    for title in titles:
        progress.update(1)
        yield title
