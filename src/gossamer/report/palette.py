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
