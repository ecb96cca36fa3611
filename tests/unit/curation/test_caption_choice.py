from curation.caption_choice import choose
from curation.verdicts import Verdict


def row(name, text="by the model", status="captioned", reason=None):
    return {"caption_id": name, "status": status, "reason": reason, "caption": text}


def kept(event, text=None):
    return Verdict(action="keep", curator="ada", event=event, text=text)


def rejected(event):
    return Verdict(action="reject", curator="bob", event=event)


def chosen(own, others, verdicts):
    choice = choose(own, others, verdicts)
    return choice.text, choice.reason, choice.edited_by


def test_without_a_curator_the_captioner_asked_now_speaks():
    assert chosen([row("now", "new words")], [row("then", "old words")], {}) == ("new words", "", None)


def test_a_picture_without_captions_has_none_and_says_so():
    assert chosen([], [], {}) == (None, "missing", None)
    assert chosen([row("now", None, "failed", "changed")], [], {}) == (None, "changed", None)


def test_a_choice_or_edit_of_an_earlier_captioners_words_stands():
    own, others = [row("now", "new words")], [row("then", "old words")]

    assert chosen(own, others, {"then": kept(4)}) == ("old words", "", None)
    assert chosen(own, others, {"then": kept(4, "mine")}) == ("mine", "", "ada")


def test_of_two_choices_the_later_counts():
    own, others = [row("now", "new words")], [row("then", "old words")]

    assert chosen(own, others, {"then": kept(4), "now": kept(9)})[0] == "new words"
    assert chosen(own, others, {"then": kept(4), "now": kept(3)})[0] == "old words"


def test_a_rejected_caption_leaves_none_unless_another_was_kept():
    own, others = [row("now")], [row("then", "old words")]

    assert chosen(own, others, {"now": rejected(2)}) == (None, "rejected", None)
    assert chosen(own, others, {"now": rejected(2), "then": kept(1)})[0] == "old words"
    assert chosen(own, others, {"then": rejected(1)})[0] == "by the model"


def test_a_curator_can_write_what_the_model_could_not():
    failed = row("now", None, "failed", "empty")

    assert chosen([failed], [], {"now": kept(1, "mine")}) == ("mine", "", "ada")
    assert chosen([failed], [], {"now": kept(1)}) == (None, "empty", None)
