"""Words for what is on the table: colours, shapes, counts, and the sentences that name them. English; written for this project."""

from collections.abc import Iterable

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
WALLS = ("grey", "teal", "brown", "violet", "olive")
SHAPES = ("circle", "square", "triangle", "star")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
THINGS = ("banana", "window", "pencil", "garden", "yellow", "lemon", "summer", "purple", "candle", "river")
CITIES = ("Oslo", "Lima", "Cairo", "Boston", "Nairobi", "Osaka")
WEATHERS = ("raining", "snowing", "sunny", "windy", "foggy")

Thing = tuple[str, str, int]  # shape, colour, count


def plural(shape: str, count: int) -> str:
    return shape if count == 1 else shape + "s"


def they_are(count: int) -> str:
    return "It is" if count == 1 else "They are"


def some(thing: Thing) -> str:
    """`a red circle`, `three blue squares`."""
    shape, colour, count = thing
    return f"{article(colour) if count == 1 else NUMBERS[count]} {colour} {plural(shape, count)}"


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def listed(parts: Iterable[str]) -> str:
    """`one`, `one and two`, `one, two and three`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def sentence(text: str, end: str = ".") -> str:
    return text[0].upper() + text[1:] + end
