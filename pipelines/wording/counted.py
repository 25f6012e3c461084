"""Counts in sentences for people. Nothing here is stored or compared; what a ledger or a receipt says has words of its own."""


def counted(value: float, thing: str) -> str:
    """`1 shard`, `66000 shards`: digits alone, for a terminal whose text may be searched."""
    return f"{value} {plural(value, thing)}"


def plural(value: float, thing: str) -> str:
    """The thing's name after such a number."""
    return thing if value == 1 else f"{thing}es" if thing.endswith("ch") else f"{thing}s"
