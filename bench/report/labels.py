"""Names beside points, where they hide neither each other nor a point."""

from matplotlib.transforms import Bbox

# where a name may stand, in points from its dot, the likeliest first: (dx, dy, horizontal, vertical)
PLACES = (
    (5, 0, "left", "center"), (-5, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top"),
    (4, 5, "left", "bottom"), (4, -5, "left", "top"), (-4, 5, "right", "bottom"), (-4, -5, "right", "top"),
    (8, 11, "left", "bottom"), (8, -11, "left", "top"), (-8, 11, "right", "bottom"), (-8, -11, "right", "top"),
    (10, 18, "left", "bottom"), (10, -18, "left", "top"), (-10, 18, "right", "bottom"), (-10, -18, "right", "top"),
)  # fmt: skip


LONGEST = 26  # letters of a name beside an axis, that it may not take the figure's place


def short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def beside(axes, points: list[tuple[float, float, str, str]], size: float = 7.0) -> None:
    """Write a name beside each (x, y, name, colour); the axes' limits and scales must be final."""
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    dot = size * figure.dpi / 72 / 2
    centres = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [Bbox.from_bounds(x - dot / 2, y - dot / 2, dot, dot) for x, y in centres]
    inside = axes.get_window_extent(renderer)
    for x, y, name, hue in points:
        best = None
        for dx, dy, across, along in PLACES:
            text = axes.annotate(short(name), (x, y), xytext=(dx, dy), textcoords="offset points", ha=across, va=along,
                                 fontsize=size, color=hue)  # fmt: skip
            box = text.get_window_extent(renderer)
            hidden = sum(box.overlaps(other) for other in taken)
            out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            worth = (hidden, out)
            if best is None or worth < best[0]:
                if best is not None:
                    best[1].remove()
                best = (worth, text, box)
            else:
                text.remove()
            if best[0] == (0, False):
                break
        assert best is not None
        taken.append(best[2])
