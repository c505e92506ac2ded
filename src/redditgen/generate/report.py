"""Reports how many of the sampled texts became titles, and why the others did not: in sidecars and in messages."""

import logging
from collections import Counter

from redditgen.errors import InputError
from redditgen.generate import filters, prompt_text
from redditgen.generate.rounds import TITLE_COUNT
from redditgen.settings import GenerateSettings

# For each fault: what messages say of texts with it, and what a user can do about it. Sidecars keep this order.
_FAULT_MESSAGES = {
    prompt_text.UNFINISHED: ("did not end", "raise --length, or finetune for longer"),
    prompt_text.MALFORMED: ("were no record", "lower --temperature, or finetune for longer"),
    prompt_text.EMPTY: ("were empty", "lower --temperature, or finetune for longer"),
    prompt_text.MARKUP: ("held markup", "lower --temperature, or finetune for longer"),
    filters.TOO_SHORT: ("were too short", "lower --min-words"),
    filters.TOO_LONG: ("were too long", "raise --max-words"),
    filters.UNSAFE: ("were not safe for work", "ask for another category or other keywords, or pass --no-sfw"),
    filters.LACKING_KEYWORDS: ("lacked a keyword", "ask for fewer or other keywords, or raise --max-tries"),
    filters.COPY: ("copied a training title", "raise --temperature, finetune for less, or pass --no-novel"),
    filters.NEAR_COPY: ("nearly copied a training title", "raise --novel-threshold or --temperature"),
    filters.DUPLICATE: ("were there already", "raise --temperature or --top-k, or pass --no-unique"),
}

_log = logging.getLogger(__name__)


def counts_for_sidecar(counts: Counter[str]) -> dict[str, int]:
    """Return the counts for the sidecar: titles, the samples judged for them, and the samples with each fault."""
    faults = _faults(counts)
    return {TITLE_COUNT: counts[TITLE_COUNT], "samples": counts[TITLE_COUNT] + sum(faults.values()), **faults}


def _faults(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in _FAULT_MESSAGES if counts[name]}


def report_counts(settings: GenerateSettings, asked: int, counts: Counter[str]) -> None:
    """Log how many texts were replaced, and warn where titles are missing of the number `asked` for.

    Raises InputError where all are missing.
    """
    faults = _faults(counts)
    why = ", ".join(f"{number} {_FAULT_MESSAGES[name][0]}" for name, number in faults.items())
    missing = asked - counts[TITLE_COUNT]
    if not missing:
        if faults:
            _log.info("drawn again: %s", why)
        return
    remedy = _FAULT_MESSAGES[max(faults, key=faults.__getitem__)][1]
    if not counts[TITLE_COUNT]:
        wanted = "text" if settings.prefix is not None else "whole title"
        limit = f" within {settings.length} tokens" if prompt_text.UNFINISHED in faults else ""
        raise InputError(f"run {settings.run}: wrote no {wanted} that is wanted ({why}{limit}); {remedy}")
    _log.warning("%d of %d titles are missing: %s; %s", missing, asked, why, remedy)
