"""The engines here answer from a script: which reply stands depends on the replies alone."""

import pytest

from captioner.embedded import EmbeddedEngine
from captioner.engine import CaptionFailure, Reply
from captioner.second_try import REPETITION_PENALTY, Answer, asked_twice
from spine.errors import ConfigError
from spine.prompts import PROMPTS
from spine.settings import CaptionConfig
from tests.unit.captioner.runs import noise

LAION = PROMPTS["laion-pop"]
GOOD = Reply("a red star at the top", "stop", 6)
CUT = Reply("a red star at", "length", 4)
LOOP = Reply("a red star and " * 8, "length", 32)
WORSE = Reply("a blue star and " * 9, "length", 36)


class Scripted:
    """Answers every second try with the same, and notes how it was asked."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def describe(self, images, prompt, max_new_tokens, repetition_penalty=1.0):
        self.calls.append((len(images), max_new_tokens, repetition_penalty))
        return [self.answer] * len(images)


def asked(first, second):
    engine = Scripted(second)
    return asked_twice(engine, [noise(0)] * len(first), first, LAION, 32), engine.calls


def test_good_replies_and_failures_are_not_asked_again():
    failure = CaptionFailure("timeout", "too slow", 5)

    assert asked([GOOD, failure], GOOD) == ([Answer(GOOD), failure], [])


def test_a_loop_is_asked_with_a_penalty_and_a_cut_with_twice_the_length():
    answers, calls = asked([CUT, GOOD, LOOP, CUT], GOOD)

    assert calls == [(1, 32, REPETITION_PENALTY), (2, 64, 1.0)]
    twice = Reply(GOOD.text, "stop", 6, attempts=2)
    assert answers == [
        Answer(twice, "truncated", CUT.text),
        Answer(GOOD),
        Answer(twice, "loop", LOOP.text),
        Answer(twice, "truncated", CUT.text),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LOOP, WORSE),
        (CUT, LOOP),
        (CUT, CUT),
        (CUT, Reply(" ", "stop", 0)),
        (CUT, CaptionFailure("refused", "no", 1)),
    ],
)
def test_the_first_reply_stands_where_the_second_is_no_better(first, second):
    [answer], _ = asked([first], second)

    assert (answer.reply.text, answer.reply.attempts) == (first.text, 2)
    assert answer.other == getattr(second, "text", None)


def test_where_the_model_has_no_room_for_twice_the_length_the_first_stands(tiny_llava):
    engine = EmbeddedEngine.load(CaptionConfig(model=str(tiny_llava), device="cpu"))
    images, length = [noise(1)], 560  # the model has 1,024 places, the picture and the prompt take over 300
    with pytest.raises(ConfigError, match="lower it to"):
        engine.describe(images, LAION, 2 * length)

    [answer] = asked_twice(engine, images, [Reply("a cut", "length", length)], LAION, length)

    assert answer == Answer(Reply("a cut", "length", length), "truncated")


def test_the_penalty_reaches_the_model(tiny_llava):
    engine = EmbeddedEngine.load(CaptionConfig(model=str(tiny_llava), device="cpu"))
    images = [noise(seed) for seed in range(3)]

    plain = engine.describe(images, LAION, 24)
    penalised = engine.describe(images, LAION, 24, 1.8)

    assert [reply.text for reply in plain] != [reply.text for reply in penalised]
    assert engine.describe(images, LAION, 24, 1.0) == plain
