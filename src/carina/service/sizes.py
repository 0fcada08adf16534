"""How large something is, in words."""


def size_words(size: int) -> str:
    """A number of bytes as people read it."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size} B"
