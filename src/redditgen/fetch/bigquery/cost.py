"""What a query costs: bytes from and into words, the share of what is free, the price beyond it."""

import re

from redditgen.errors import UsageError

FREE = 1 << 40  # bytes a month
_PRICE = 6.25  # USD for 2^40 bytes beyond them, on demand, in the US

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?((?:[kmgt]i?)?)b?")


def byte_count(text: str) -> int:
    """The bytes of a text such as 50GB, 1.5 TiB or 1000000; raises UsageError."""
    amount = _AMOUNT.fullmatch(text.strip().lower())
    if not amount or float(amount[1]) == 0:
        raise UsageError(f"--max-bytes must be an amount like 50GB, not {text!r}")
    return int(float(amount[1]) * (_UNITS | _BINARY_UNITS)[amount[2]])


def size(count: float) -> str:
    """Bytes in the unit that leaves up to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def forecast(count: int | None) -> str:
    """What a query that reads so many bytes costs; BigQuery does not always tell how many."""
    if not count:
        return "it does not tell how much the query reads: what it costs is unknown"
    return (
        f"the query reads {size(count)}, {count / FREE:.2%} of the 1 TiB a month that is free; "
        f"beyond that about USD {count / FREE * _PRICE:.2f} (USD {_PRICE} a TiB; prices change)"
    )
