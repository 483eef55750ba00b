"""What the figures of a validation share: a panel per split, and a marker per look."""

from __future__ import annotations

from repsim.plots.appearance import Size, width_of


def panel_grid(count: int, size: Size) -> tuple[float, int, int]:
    """Room for panels of one kind.

    Args:
        count: Number of panels.
        size: Width of the figure.

    Returns:
        Width in inches, columns, rows.

    Raises:
        UsageError: The size is unknown.

    Example:
        >>> panel_grid(5, "wide")[1:], panel_grid(5, "single")[1:]
        ((3, 2), (1, 5))
    """
    columns = min(count, {"single": 1, "medium": 2}.get(size, 3))
    return width_of(size), columns, -(-count // columns)
