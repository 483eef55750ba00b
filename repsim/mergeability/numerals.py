"""Numbers in sentences: a true minus sign, and no share that claims more than was counted."""

from __future__ import annotations


def signed(value: float, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none, and no minus before a zero.

    Args:
        value: A number.
        digits: Digits behind the point.

    Example:
        >>> signed(-0.5), signed(-0.001), signed(float("nan")), signed(0.1234, 3)
        ('−0.50', '0.00', '–', '0.123')
    """
    if value != value:
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def brief(value: float) -> str:
    """Three significant digits with a true minus sign.

    Args:
        value: A number.

    Example:
        >>> brief(-0.01234), brief(12.0)
        ('−0.0123', '12')
    """
    return f"{value:.3g}".replace("-", "−")


def percent(share: float) -> str:
    """A share in whole percent; 0 % and 100 % only where that is exact.

    Args:
        share: 0 to 1, or more.

    Example:
        >>> percent(0.003), percent(0.0), percent(0.42), percent(0.998), percent(1.05)
        ('under 1 %', '0 %', '42 %', 'over 99 %', '105 %')
    """
    if share != share:
        return "–"
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"
