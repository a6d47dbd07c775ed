"""Which colours? Eight that colour-blind readers tell apart (Okabe & Ito, 2008), always with a second sign."""

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


# One hue of falling lightness, so that every kind of colour blindness sees the same order.
_SHADES = ((255, 255, 255), (198, 219, 239), (133, 188, 227), (74, 150, 206))
