"""evaluate: how good a run is, on titles that it never learned from and on those that it writes for their prompts."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen import __version__
from redditgen.errors import InputError, UsageError
from redditgen.evaluate.held_out_figures import held_out_figures
from redditgen.evaluate.page import TITLES_SHOWN, render_page
from redditgen.evaluate.samples import Sample, draw_samples
from redditgen.evaluate.statistics import Figure
from redditgen.evaluate.table import format_text_table
from redditgen.evaluate.title_figures import TitleChecks, all_title_figures
from redditgen.files.atomic import atomic_write, file_sha256, refuse_existing, refuse_unwritable
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date
from redditgen.finetune.dataset.load import read_held_out_records
from redditgen.finetune.dataset.record_files import find_files
from redditgen.gpt2.find import find_run
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import NO_RECORDS
from redditgen.settings import EvaluateSettings
from redditgen.titles.novelty import INDEX_FILE as INDEX
from redditgen.titles.record import Record

if TYPE_CHECKING:
    import pandas as pd

JSON_FILE, HTML_FILE = "evaluation.json", "evaluation.html"

_PAGE = "page"  # key of its hash: what was killed between the two files has left a page of other figures
_OF_ANOTHER_SPLIT = 0.02  # more than the precisions of finetune make

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of a run at a step, and what they were made of."""

    settings: EvaluateSettings
    step: int
    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]
    held_out: tuple[str, ...]
    """The different held-out titles."""
    inputs: dict[str, str]
    """Files and their hashes."""

    @property
    def titles(self) -> list[Sample]:
        """The samples that are whole titles, in random order of their prompts."""
        return [sample for sample in self.samples if sample.fault is None]

    @property
    def counts(self) -> dict[str, int]:
        faults = Counter(sample.fault for sample in self.samples if sample.fault)
        return {"texts": len(self.samples), "titles": len(self.titles), **faults, "held_out_titles": len(self.held_out)}

    def frame(self) -> "pd.DataFrame":
        """The figures, a row each."""
        import pandas as pd

        return pd.DataFrame([asdict(figure) for figure in self.figures]).astype(
            {"keywords": "Int64", "low": "float64", "high": "float64"}
        )

    def content(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        shown = [{**asdict(sample), "synthetic": True} for sample in self.titles[:TITLES_SHOWN]]
        for sample in shown:
            del sample["fault"]
        return {
            "redditgen": __version__,
            "command": "evaluate",
            "run": self.settings.run,
            "step": self.step,
            "settings": asdict(self.settings),
            "inputs": self.inputs,
            "counts": self.counts,
            "figures": [asdict(figure) for figure in self.figures],
            "titles": shown,
        }


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure the run that the settings name; raises RedditgenError where something is not there or not to be used."""
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    records = _held_out(settings, run)
    real = tuple(dict.fromkeys(record.title or "" for record in records))
    checks = TitleChecks.load(settings, run)
    samples = draw_samples(settings.generating, run, records, settings.n, settings.sample_seed)
    _require_titles(settings, samples)
    seed = settings.sample_seed
    held_out = held_out_figures(run, records, seed)
    _warn_of_another_split(settings, run, held_out[0])
    return Evaluation(
        settings=settings,
        step=run.step(),
        figures=(*held_out, *all_title_figures(samples, real, checks, seed)),
        samples=tuple(samples),
        held_out=real,
        inputs={str(path): file_sha256(path) for path in _inputs(settings, run)},
    )


def write_evaluation(settings: EvaluateSettings) -> Evaluation:
    """The same, written to two files in the settings' folder; raises OutputExists where they are there."""
    out = settings.output
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out: {out} is a file; name a folder")
    refuse_unwritable(out / JSON_FILE)
    with locked_output(out / JSON_FILE):
        refuse_existing(
            out / JSON_FILE, settings.overwrite
        )  # it is written last: without it the page is what a kill left
        made = evaluate(settings)
        shown = render_page(settings.run, made.step, made.figures, made.counts, made.titles, made.held_out)
        # JSON can hold half a pair, as it escapes it; a page can't.
        _write(out / HTML_FILE, shown, "replace")
        content = made.content() | {_PAGE: file_sha256(out / HTML_FILE)}
        _write(
            out / JSON_FILE, json.dumps(content, indent=2, default=str, ensure_ascii=False) + "\n", "backslashreplace"
        )
    return made


def _write(path: Path, text: str, errors: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf8", errors=errors)
    _log.info("wrote %s", path)


def is_up_to_date(settings: EvaluateSettings) -> bool:
    """Whether the two files are there, made of the same; the one in JSON is its own sidecar."""
    out, run = settings.output, find_run(settings.run, settings.checkpoint_dir, settings.step)
    path, inputs = out / JSON_FILE, _inputs(settings, run)
    if not (out / HTML_FILE).exists():
        return False
    facts = {"step": run.step(), _PAGE: file_sha256(out / HTML_FILE)}
    return bool(find_up_to_date(path, settings, inputs=inputs, ignoring=IGNORED_SETTINGS, facts=facts, sidecar=path))


def format_table(made: Evaluation) -> str:
    """For a terminal."""
    return format_text_table(made.figures)


def _held_out(settings: EvaluateSettings, run: ModelDir) -> list[Record]:
    """The records that have a title, of those held out."""
    run_info = run.run_info()
    if run_info.record_tokens == NO_RECORDS:
        raise UsageError(f"--run: run {settings.run} learned plain text, which has no titles to measure")
    records = read_held_out_records(settings.finetuned, run_info, run.tokenizer())
    if found := [record for record in records if (record.title or "").strip()]:
        return found
    if settings.val:
        raise InputError(f"{settings.val}: holds no title to measure on; give finetune's --val")
    raise InputError(
        f"{settings.against}: no title in it is held out by --seed {settings.seed} --val-fraction "
        f"{settings.val_fraction:g}; raise --val-fraction for finetune and here, or give --val"
    )


def _require_titles(settings: EvaluateSettings, samples: Sequence[Sample]) -> None:
    faults = Counter(sample.fault for sample in samples)
    if not faults[None]:
        why = ", ".join(f"{number} {fault}" for fault, number in faults.items())
        raise InputError(
            f"run {settings.run}: none of {len(samples)} texts is a whole title ({why}); finetune for longer, "
            "or raise --length"
        )


def _warn_of_another_split(settings: EvaluateSettings, run: ModelDir, bits: Figure) -> None:
    """Titles that the run has learned would make it look better than it is; finetune noted what it measured."""
    noted = [report.val_bits_per_char for report in run.metrics.reports() if report.step == run.step()]
    [last] = [found for found in noted if found is not None][-1:] or [bits.value]
    if abs(bits.value / last - 1) > _OF_ANOTHER_SPLIT:
        _log.warning(
            "run %s: finetune measured %.3f bits per character at this step, and here it is %.3f, so other titles were "
            "held out: give its dataset, --seed, --val-fraction and --val",
            settings.run, last, bits.value,
        )  # fmt: skip


def _inputs(settings: EvaluateSettings, run: ModelDir) -> list[Path]:
    """The files that the figures depend on."""
    index = run.path / INDEX
    more = filter(None, (settings.words, run.weights_file(), index if index.exists() else None))
    return [*find_files(settings.finetuned.dataset), *more]
