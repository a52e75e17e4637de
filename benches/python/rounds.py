"""Rounds, and rows of the table as table.awk reads them."""

from collections.abc import Callable, Iterable

ROUNDS = 9


def in_turn(*measures: Callable[[], float]) -> list[list[float]]:
    """The figures of each, ROUNDS of them, taken in turn."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [list(figures) for figures in zip(*rounds, strict=True)]


def row(what: str, unit: str, target: str, ours: Iterable[float], peer: Iterable[float] = ()) -> None:
    cells = (" ".join(f"{figure:.6g}" for figure in figures) for figures in (ours, peer))
    print(what, unit, target, *cells, sep="\t", flush=True)
