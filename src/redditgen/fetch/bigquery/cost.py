"""What a query costs: bytes in words, the share of what is free, the price beyond it."""

_FREE = 1 << 40  # bytes a month
_PRICE = 6.25  # USD for 2^40 bytes beyond them, on demand, in the US


def format_bytes(count: float) -> str:
    """Bytes in the unit that leaves up to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def cost_forecast(count: int | None) -> str:
    """What a query that reads so many bytes costs; BigQuery does not always tell how many."""
    if not count:
        return "it does not tell how much the query reads: what it costs is unknown"
    return (
        f"the query reads {format_bytes(count)}, {count / _FREE:.2%} of the 1 TiB a month that is free; "
        f"beyond that about USD {count / _FREE * _PRICE:.2f} (USD {_PRICE} a TiB; prices change)"
    )
