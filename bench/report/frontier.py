"""Points that no other beats in both: the faster with less."""

from bench.report.style import colour


def draw(axes, points: list[tuple[float, float]]) -> None:
    """A line through the points (speed, price) of which no other is both faster and cheaper."""
    front, least = [], float("inf")
    for speed, price in sorted(points, reverse=True):
        if price < least:
            least = price
            front.append((speed, price))
    if front:
        axes.step(*zip(*front, strict=True), where="pre", color=colour("line"), linewidth=1.4, zorder=0)
