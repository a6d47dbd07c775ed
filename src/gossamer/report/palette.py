"""Which colours? Eight that colour-blind readers tell apart (Okabe & Ito, 2008), always with a second sign."""

from collections.abc import Sequence
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#A8578A",
    "#B87A00",
    "#3A93C6",
    "#222222",
    "#8A8F98",
)
RUNS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def translucent(colour: str, alpha: float) -> str:
    """Return "#RRGGBB" as an rgba() colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def shade(share: float) -> str:
    """Return a background for black text, the darker blue the higher a share in [0, 1] is."""
    place = min(max(share, 0.0), 1.0) * (len(_SHADES) - 1)
    below = min(int(place), len(_SHADES) - 2)
    pairs = zip(_SHADES[below], _SHADES[below + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - below)):02X}" for a, b in pairs)


def steps(stops: Sequence[Colour], count: int) -> list[Colour]:
    """Return `count` colours, from the first stop to the last, evenly between one stop and the next."""
    found: list[Colour] = []
    for i in range(count):
        place = i / (count - 1) * (len(stops) - 1)
        below = min(int(place), len(stops) - 2)
        red, green, blue = (
            round(a + (b - a) * (place - below)) for a, b in zip(stops[below], stops[below + 1], strict=True)
        )
        found.append((red, green, blue))
    return found


# Blue and vermilion fall to the same lightness: told apart by every kind of colour blindness, and white between.
DIVERGING: Sequence[Colour] = ((0, 61, 107), (0, 114, 178), (255, 255, 255), (213, 94, 0), (122, 48, 0))
RISING: Sequence[Colour] = ((255, 255, 255), (222, 186, 209), (168, 87, 138), (62, 16, 51))

# One hue of falling lightness, so that every kind of colour blindness sees the same order.
_SHADES = ((255, 255, 255), (198, 219, 239), (133, 188, 227), (74, 150, 206))
