"""Describes what a query costs: bytes as text, the share of the free quota, and the price beyond it."""

_FREE_BYTES = 1 << 40  # a month
_USD_PER_TIB = 6.25  # for 2^40 bytes beyond the free ones, on demand, in the US


def format_bytes(count: float) -> str:
    """Return a number of bytes as text, in the decimal unit that leaves up to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def cost_forecast(count: int | None) -> str:
    """Return a sentence on what a query costs that reads `count` bytes; None or 0 where BigQuery does not say."""
    if not count:
        return "it does not tell how much the query reads: what it costs is unknown"
    return (
        f"the query reads {format_bytes(count)}, {count / _FREE_BYTES:.2%} of the 1 TiB a month that is free; "
        f"beyond that about USD {count / _FREE_BYTES * _USD_PER_TIB:.2f} (USD {_USD_PER_TIB} a TiB; prices change)"
    )
