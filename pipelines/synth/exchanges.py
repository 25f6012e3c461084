"""The little plays of which a conversation is made. Each takes the stage, says its lines, and answers False when there is nothing to play.

What the assistant says follows from what was asked, seen, heard, typed or returned, so that there is something to learn; when it is said
follows the user's turns. `DECK` names them all; `ESSENTIAL` are those that a short recording must not miss.
"""

from collections.abc import Callable, Iterable

from ...schemas.layout import NUM_SLOTS
from .grammar import CITIES, COLOURS, NUMBERS, SHAPES, THINGS, WEATHERS, listed, plural, sentence, some, they_are
from .scene import ASSISTANT, MS, USER, Said, Stage, even


def show(stage: Stage) -> bool:
    """Something is put on the table; what is already there may be replaced. Without a picture the user says so."""
    table = stage.sight.table
    shape = stage.rng.choice([s for s in SHAPES if s not in [t[0] for t in table]] if len(table) < 3 else [t[0] for t in table])
    thing = (shape, stage.rng.choice(COLOURS), stage.rng.choice([1, 1, 2, 3, 4]))
    at = stage.snap(stage.floor + stage.between(300, 900))
    stage.show(at, table=(*(t for t in table if t[0] != shape), thing))
    stage.floor = at
    if stage.seen and stage.chance(0.5):
        return True
    opening = (
        stage.rng.choice(["Look,", "Now there is", "I have"]) if thing[2] == 1 else stage.rng.choice(["Look,", "Now there are", "I have"])
    )
    stage.say(USER, f"{opening} {some(thing)}.", gap=stage.answer_gap())
    stage.say(
        ASSISTANT, stage.rng.choice(["Okay.", f"I see {'it' if thing[2] == 1 else 'them'}.", sentence(some(thing))]), gap=stage.answer_gap()
    )
    return True


def ask_colour(stage: Stage) -> bool:
    if not stage.sight.table:
        return False
    shape, colour, count = stage.rng.choice(stage.sight.table)
    stage.say(USER, f"What colour {'is' if count == 1 else 'are'} the {plural(shape, count)}?", tune="rise")
    stage.say(ASSISTANT, stage.rng.choice([f"{they_are(count)} {colour}.", sentence(colour)]), gap=stage.answer_gap())
    return True


def ask_wall(stage: Stage) -> bool:
    if not stage.seen:
        return False
    stage.say(USER, "What colour is the wall?", tune="rise")
    stage.say(ASSISTANT, f"The wall is {stage.sight.wall}.", gap=stage.answer_gap())
    return True


def ask_count(stage: Stage) -> bool:
    if not stage.sight.table:
        return False
    shape = stage.rng.choice(SHAPES)
    count = next((t[2] for t in stage.sight.table if t[0] == shape), 0)
    stage.say(USER, f"How many {shape}s are there?", tune="rise")
    if count == 0:
        answer = f"There are no {shape}s."
    elif stage.chance(0.2):  # a slip of the tongue, put right at once
        stage.say(ASSISTANT, f"There are {NUMBERS[count + 2]},", gap=stage.answer_gap(), tune="flat")
        stage.go_on(ASSISTANT, f"no, I mean {NUMBERS[count]}.")
        return True
    else:
        answer = f"There {'is' if count == 1 else 'are'} {NUMBERS[count]}."
    stage.say(ASSISTANT, answer, gap=stage.answer_gap())
    return True


def ask_all(stage: Stage) -> bool:
    if not stage.sight.table:
        return False
    stage.say(USER, "What do you see?", tune="rise")
    stage.say(ASSISTANT, f"I see {listed(some(t) for t in stage.sight.table)}.", gap=stage.answer_gap())
    if stage.chance(0.6):
        stage.say(USER, stage.rng.choice(["Thank you.", "Very good.", "That is right."]))
    return True


def ask_yes_no(stage: Stage) -> bool:
    if not stage.sight.table:
        return False
    shape, colour, count = stage.rng.choice(stage.sight.table)
    guess = colour if stage.chance(0.5) else stage.rng.choice(COLOURS)
    stage.say(USER, f"{'Is' if count == 1 else 'Are'} the {plural(shape, count)} {guess}?", tune="rise")
    stage.say(ASSISTANT, f"{'Yes' if guess == colour else 'No'}, {they_are(count).lower()} {colour}.", gap=stage.answer_gap())
    return True


def correct_oneself(stage: Stage) -> bool:
    """The user names a wrong colour and puts it right; the assistant repeats the right one."""
    if not stage.sight.table:
        return False
    shape, colour, count = stage.rng.choice(stage.sight.table)
    wrong = stage.rng.choice([c for c in COLOURS if c != colour])
    verb = "is" if count == 1 else "are"
    stage.say(USER, f"The {plural(shape, count)} {verb} {wrong},", tune="flat")
    stage.go_on(USER, f"no wait, {they_are(count).lower()} {colour}.")
    stage.say(ASSISTANT, f"{sentence(colour, '')}, I see.", gap=stage.answer_gap())
    return True


def count_up(stage: Stage) -> bool:
    """The assistant counts; the user hums along."""
    last = stage.rng.randrange(4, 7)
    stage.say(USER, f"Please count to {NUMBERS[last]}.")
    numbers = _counting(stage, ASSISTANT, range(1, last + 1))
    if stage.chance(0.6):
        stage.hum(USER, numbers[1:])
    return True


def count_until_stopped(stage: Stage) -> bool:
    """The user interrupts; the assistant breaks off within a second."""
    stage.say(USER, "Please count to twelve.")
    victim = _counting(stage, ASSISTANT, range(1, 13))[stage.rng.randrange(3, 7)]
    text = stage.rng.choice(["Stop, please.", "Okay, stop.", "Wait, stop there."])
    stop = stage.place(USER, text, at=even((victim.start + victim.stop) / 2), manner="interruption")
    stage.cut(ASSISTANT, stop.start + stage.between(250, 600))
    _resume(stage, ASSISTANT, stage.rng.choice(["Okay.", "I stopped."]))
    return True


def miscount(stage: Stage) -> bool:
    """The user counts wrong and the assistant interrupts."""
    left_out = stage.rng.randrange(3, 6)
    stage.say(USER, "I count the pencils.")
    said = _counting(stage, USER, [n for n in range(1, left_out + 5) if n != left_out])
    wrong, after = said[left_out - 1 : left_out + 1]
    text = f"{sentence(NUMBERS[left_out], '')} is missing."
    stop = stage.place(ASSISTANT, text, at=wrong.stop + min(stage.answer_gap(), 260 * MS), manner="interruption")
    stage.cut(USER, max(stop.start + stage.between(150, 300), after.start + 2))
    _resume(stage, USER, f"Oh, {NUMBERS[left_out]}.")
    return True


def _resume(stage: Stage, who: int, text: str) -> None:
    """Who was interrupted speaks again, in a turn of its own: at least half a second after breaking off."""
    stage.say(who, text, gap=max(stage.answer_gap(), stage.free(who) + 520 * MS - stage.floor))


def _counting(stage: Stage, who: int, numbers: Iterable[int]) -> list[Said]:
    """One number a breath, as one turn."""
    *first, last = numbers
    pauses = [stage.answer_gap(), *(stage.between(150, 300) for _ in first)]
    texts = [*(f"{sentence(NUMBERS[n], '')}," for n in first), sentence(NUMBERS[last])]
    return [stage.say(who, text, gap=pause, tune="fall" if text[-1] == "." else "flat") for text, pause in zip(texts, pauses, strict=True)]


def tell(stage: Stage) -> bool:
    """A long turn of the user; the assistant hums inside it."""
    first, second = stage.rng.sample(SHAPES, 2)
    one, two = stage.rng.sample(COLOURS, 2)
    lines = [
        stage.say(USER, f"I put the {one} {first} on the left,", tune="flat"),
        stage.go_on(USER, f"and the {two} {second} on the right,", tune="flat"),
        stage.go_on(USER, "and I leave the middle empty.", tune="fall"),
    ]
    stage.hum(ASSISTANT, lines[:1])
    if stage.chance(0.5):
        stage.hum(ASSISTANT, lines[1:2])
    stage.say(USER, "What is on the left?", gap=stage.between(200, 450), tune="rise")
    stage.say(ASSISTANT, f"The {one} {first}.", gap=stage.answer_gap())
    return True


def after_number(stage: Stage) -> bool:
    n = stage.rng.randrange(1, 11)
    stage.say(USER, f"What comes after {NUMBERS[n]}?", tune="rise")
    stage.say(ASSISTANT, sentence(NUMBERS[n + 1]), gap=stage.answer_gap())
    return True


def repeat(stage: Stage) -> bool:
    words = stage.rng.sample(THINGS, 2)
    stage.say(USER, f"Um, please say {' '.join(words)}." if stage.chance(0.3) else f"Please say {' '.join(words)}.")
    stage.say(ASSISTANT, sentence(" ".join(words)), gap=stage.answer_gap())
    return True


def clap_on_request(stage: Stage) -> bool:
    """The assistant speaks up by itself when it hears (and sees) the clap."""
    stage.say(USER, "Tell me when you hear a clap.")
    stage.say(ASSISTANT, "Okay.")
    stage.make_noise(USER, "clap", stage.snap(stage.floor + stage.between(900, 2600)))
    stage.say(ASSISTANT, stage.rng.choice(["Now.", "Clap."]), gap=stage.between(240, 480))
    return True


def count_claps(stage: Stage) -> bool:
    num = stage.rng.randrange(1, 4)
    stage.floor += stage.between(200, 500)
    for _ in range(num):
        stage.make_noise(USER, "clap", stage.snap(stage.floor + stage.between(320, 520)))
    stage.say(USER, "How many claps was that?", gap=stage.between(300, 500), tune="rise")
    stage.say(ASSISTANT, f"{sentence(NUMBERS[num], '')} clap{'' if num == 1 else 's'}.", gap=stage.answer_gap())
    return True


def door(stage: Stage) -> bool:
    """Only the picture tells: the door opens without a sound."""
    if not stage.seen:
        return False
    verb = "closes" if stage.sight.door else "opens"
    stage.say(USER, f"Tell me when the door {verb}.")
    stage.say(ASSISTANT, "I will.")
    stage.floor = stage.snap(stage.floor + stage.between(900, 2600))
    stage.show(stage.floor, door=not stage.sight.door)
    stage.say(ASSISTANT, f"The door is {'open' if stage.sight.door else 'closed'}.", gap=stage.between(300, 600))
    return True


def typed(stage: Stage) -> bool:
    word = stage.rng.choice(THINGS)
    stage.say(USER, "I am typing a word.")
    stage.floor += stage.between(500, 1500)
    stage.happen("typed", stage.floor, USER, word)
    stage.say(ASSISTANT, f"You typed {word}.", gap=stage.between(300, 700))
    return True


def look_up(stage: Stage) -> bool:
    """The assistant delegates, stays present, and says the result when it arrives: the answer is in the background text alone."""
    city, weather, degrees = stage.rng.choice(CITIES), stage.rng.choice(WEATHERS), stage.rng.randrange(2, 13)
    slot = _delegate(stage, city)
    if stage.chance(0.5):
        stage.say(USER, stage.rng.choice(["Take your time.", "Thank you."]))
    elif stage.sight.table and stage.chance(0.6):
        ask_colour(stage)
    arrives = stage.floor + stage.between(600, 2000)
    if stage.chance(0.5):
        stage.happen("background", arrives, ASSISTANT, f"{weather}, {degrees} degrees", slot, complete=True)
    else:
        stage.happen("background", arrives, ASSISTANT, weather, slot)
        arrives += stage.between(200, 500)
        stage.happen("background", arrives, ASSISTANT, f", {degrees} degrees", slot, complete=True)
    stage.floor = max(stage.floor, arrives)
    stage.say(ASSISTANT, f"In {city} it is {weather},", gap=stage.between(300, 600), tune="flat")
    stage.go_on(ASSISTANT, f"{NUMBERS[degrees]} degrees.", pause=stage.between(60, 160))
    return True


def look_up_in_vain(stage: Stage) -> bool:
    """The user loses interest and the assistant cancels."""
    slot = _delegate(stage, stage.rng.choice(CITIES))
    stage.say(USER, "Never mind.")
    said = stage.say(ASSISTANT, "Okay.", gap=stage.answer_gap())
    stage.happen("cancel", said.start, ASSISTANT, slot=slot)
    return True


def _delegate(stage: Stage, city: str) -> int:
    """The question, the promise and the request; the slot it takes: the five are used in turn."""
    slot, stage.next_slot = stage.next_slot, (stage.next_slot + 1) % NUM_SLOTS
    stage.say(USER, f"What is the weather in {city}?", tune="rise")
    asked = stage.say(ASSISTANT, "Let me look that up.", gap=stage.answer_gap())
    stage.happen("delegate", asked.start, ASSISTANT, f"weather in {city}", slot)
    return slot


def laugh(stage: Stage) -> bool:
    """Both laugh, one into the other."""
    if not all(len(voice.laugh(0, 16_000)) for voice in stage.voices):
        return False
    stage.say(USER, "The triangle fell off the table again.")
    start = stage.floor + stage.between(100, 300)
    stage.make_noise(USER, "laugh", start)
    stage.make_noise(ASSISTANT, "laugh", start + stage.between(150, 500))
    stage.say(ASSISTANT, "Poor triangle.", gap=stage.between(200, 500))
    return True


def quiet(stage: Stage) -> bool:
    """Nobody speaks for some seconds."""
    stage.floor += stage.between(2200, 5500)
    stage.say(USER, "Are you still there?", gap=0, tune="rise")
    stage.say(ASSISTANT, "Yes, I am here.", gap=stage.answer_gap())
    return True


Exchange = Callable[[Stage], bool]
ESSENTIAL: tuple[Exchange, ...] = (tell, clap_on_request, count_until_stopped, typed, look_up, ask_all)
DECK: tuple[Exchange, ...] = (
    *ESSENTIAL, show, show, ask_colour, ask_colour, ask_wall, ask_count, ask_count, ask_yes_no, correct_oneself, count_up, miscount,
    look_up_in_vain, after_number, repeat, count_claps, door, laugh, quiet,
)  # fmt: skip
