"""Settings that must lie in a range, and what is said of one that does not."""

from typing import Any

__all__ = ["check_ranges"]


def check_ranges(
    settings: Any,
    *,
    counts: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
) -> None:
    """Check fields of a dataclass.

    Args:
        settings: The dataclass.
        counts: Names of fields that must be at least 1.
        positive: Of those that must be above 0.
        not_negative: Of those that must be at least 0.
        shares: Of those that must lie in [0, 1].

    Raises:
        ValueError: If a value lies outside its range.
    """
    for names, fits, range in (
        (counts, lambda value: value >= 1, "be at least 1"),
        (positive, lambda value: value > 0, "be above 0"),
        (not_negative, lambda value: value >= 0, "be at least 0"),
        (shares, lambda value: 0 <= value <= 1, "lie in [0, 1]"),
    ):
        for name in names:
            if not fits(value := getattr(settings, name)):
                raise ValueError(f"{name} is {value}, but must {range}.")
