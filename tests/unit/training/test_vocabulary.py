import pytest

from popfactory.demo_world import caption
from spine.prompts import PROMPTS
from spine.torchvision_ops import declare_missing_operators
from training.evaluate import held_out
from training.vocabulary import TEMPLATE, clip_tokenizer, llava_tokenizer, prompt_sentences

declare_missing_operators()


@pytest.fixture(scope="module")
def tokenizer():
    return llava_tokenizer()


def test_the_sentences_are_the_prompt_cut_up():
    assert "".join(prompt_sentences()) == PROMPTS["laion-pop"].text
    assert len(prompt_sentences()) == 13


def test_the_verbatim_prompt_is_one_token_a_sentence_and_comes_back(tokenizer):
    text = TEMPLATE.format(prompt=PROMPTS["laion-pop"].text)

    ids = tokenizer(text).input_ids

    assert tokenizer.convert_ids_to_tokens(ids)[6:19] == prompt_sentences()
    assert len(ids) < 25
    assert tokenizer.decode(ids) == "<s>" + text


def test_captions_come_back_and_take_one_token_a_word(tokenizer):
    for scene in held_out(0, 100):
        text = " " + caption(scene)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
        assert len(ids) <= 1.4 * len(text.split())


def test_clip_s_texts_fit_its_context():
    tokenizer = clip_tokenizer(80)

    assert max(len(tokenizer(caption(scene)).input_ids) for scene in held_out(0, 500)) <= 80
