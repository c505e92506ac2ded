r"""The record format: builds, escapes and parses records. No other module knows the delimiters and tokens.

A record is one line. Between a start and an end token it holds its sections in a fixed order, each after a delimiter of
two characters:

    <|startoftext|>~`category~^keyword keyword~@title~}body<|endoftext|>

Ordinary text is not changed, so the records equal those of the report's `keyword_encode.py`. A delimiter or token in a
field is broken up by a backslash, and a line break is written as a letter:

    ~@  ->  ~\@        <|endoftext|>  ->  <\|endoftext|>        newline  ->  \n        carriage return  ->  \r

A record without delimiters, `<|startoftext|>title<|endoftext|>`, which gpt-2-simple makes from a one-column CSV, holds
just a title.

A backslash is doubled only where it would read as one of these escapes, so `¯\_(ツ)_/¯` is not changed. An escaped
field contains no delimiter and no token: a plain search for the delimiters, such as that of the report's own decoder,
finds exactly the sections.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Any

START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
DELIMITERS = {"category": "~`", "keywords": "~^", "title": "~@", "body": "~}"}
SECTIONS = tuple(DELIMITERS)

_SECTION_OF = {delimiter: section for section, delimiter in DELIMITERS.items()}
# Every set of sections that a record may have, in the fixed order.
_VALID_SECTIONS = {names for count in range(1, 5) for names in itertools.combinations(SECTIONS, count)}
_DELIMITER = re.compile(r"(~[`^@}])")

_NEEDS_ESCAPE = re.compile(r"[~<\\\n\r]")  # text without any of these characters needs no escapes
# Backslashes matter only inside a delimiter or token, and before a line break or the letter of one. `(?<!\\)\\++`
# matches a sequence of backslashes only as a whole: a search from each backslash of a long one would take hours.
_INSIDE_DELIMITER = re.compile(r"~(\\*)(?=[`^@}])")
_INSIDE_TOKEN = re.compile(r"<(\\*)(?=\|(?:startoftext|endoftext)\|>)")
_LINE_BREAK_OR_LOOKALIKE = re.compile(r"(?<!\\)\\++[nr\n\r]|[\n\r]")
_ESCAPED_LINE_BREAK = re.compile(r"((?<!\\)\\++)([nr])")
# The start of a delimiter, token or escape that a cut leaves at the end of a text.
_TOKEN_PREFIXES = "|".join(
    sorted({re.escape(token[1:end]) for token in (START_TOKEN, END_TOKEN) for end in range(1, len(token))})
)
_INCOMPLETE_END = re.compile(rf"(?:~\\*|<\\*(?:{_TOKEN_PREFIXES})|(?<!\\)\\++)\Z")
_LETTER_OF_LINE_BREAK = {"\n": "n", "\r": "r"}
_LINE_BREAK_OF_LETTER = {"n": "\n", "r": "\r"}


@dataclass(frozen=True)
class Record:
    """The fields of one record: None for a section that the record does not have, '' for an empty one.

    A record without `has_sections` has no delimiters: it has a title, not empty, and no other field.
    """

    category: str | None = None
    keywords: str | None = None
    title: str | None = None
    body: str | None = None
    has_sections: bool = True


def escape(text: str) -> str:
    """Escape delimiters, tokens and line breaks in a field; other text is returned unchanged."""
    if not _NEEDS_ESCAPE.search(text):
        return text
    text = _LINE_BREAK_OR_LOOKALIKE.sub(_escape_line_break, text)
    text = _INSIDE_DELIMITER.sub(lambda m: "~" + m[1] + "\\", text)
    return _INSIDE_TOKEN.sub(lambda m: "<" + m[1] + "\\", text)


def unescape(text: str) -> str:
    """Undo `escape`. Text that `escape` can't have returned is accepted too: what is no escape is left as it is."""
    if "\\" not in text:
        return text
    text = _INSIDE_TOKEN.sub(lambda m: "<" + m[1][:-1], text)
    text = _INSIDE_DELIMITER.sub(lambda m: "~" + m[1][:-1], text)
    return _ESCAPED_LINE_BREAK.sub(_unescape_line_break, text)


def _escape_line_break(match: re.Match[str]) -> str:
    backslashes, char = match[0][:-1], match[0][-1]
    escape_prefix = "\\" if char in _LETTER_OF_LINE_BREAK else ""
    return backslashes * 2 + escape_prefix + _LETTER_OF_LINE_BREAK.get(char, char)


def _unescape_line_break(match: re.Match[str]) -> str:
    backslashes, letter = match.groups()
    is_escape = len(backslashes) % 2 == 1
    return "\\" * (len(backslashes) // 2) + (_LINE_BREAK_OF_LETTER[letter] if is_escape else letter)


def format_sections(record: Record) -> str:
    """Return the delimiters and escaped fields of a record, without its tokens."""
    if not record.has_sections:
        return escape(record.title or "")
    fields = ((delimiter, getattr(record, section)) for section, delimiter in DELIMITERS.items())
    return "".join(delimiter + escape(field) for delimiter, field in fields if field is not None)


def build(record: Record) -> str:
    """Return a record as one line of an encoded file, without the line break."""
    return START_TOKEN + format_sections(record) + END_TOKEN


def build_prompt(record: Record, continue_with: str) -> str:
    """Return the start of a record, up to and including the delimiter of the section that the model is to write next.

    `continue_with` names that section; any other string adds no delimiter.
    """
    return START_TOKEN + format_sections(record) + DELIMITERS.get(continue_with, "")


def parse(text: str) -> Record | None:
    """Parse one complete record.

    Returns None for any other text: unfinished, without content, or with a section repeated or out of order.
    """
    if not (text.startswith(START_TOKEN) and text.endswith(END_TOKEN)):
        return None
    return parse_sections(text[len(START_TOKEN) : -len(END_TOKEN)])


def parse_sections(text: str) -> Record | None:
    """Parse the text between the tokens of a record; returns None where `parse` does."""
    text_before, *pieces = _DELIMITER.split(text)
    if not pieces:
        return Record(title=unescape(text_before), has_sections=False) if text_before else None
    names = tuple(_SECTION_OF[delimiter] for delimiter in pieces[::2])
    if text_before or names not in _VALID_SECTIONS:
        return None
    fields: dict[str, Any] = {name: unescape(piece) for name, piece in zip(names, pieces[1::2], strict=True)}
    return Record(**fields)


def parse_unfinished(text: str) -> Record | None:
    """Parse the text after the start token of a record without an end token; its last section may be incomplete.

    Leaves out an incomplete delimiter, token or escape at the end. Returns None where `parse` does.
    """
    return parse_sections(_INCOMPLETE_END.sub("", text))


def has_markup(text: str) -> bool:
    """Return whether a text contains a delimiter or a token."""
    return bool(_DELIMITER.search(text)) or START_TOKEN in text or END_TOKEN in text
