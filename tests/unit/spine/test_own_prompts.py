import pytest

from spine.config import load_config, write_config
from spine.errors import ConfigError
from spine.prompts import PROMPTS, prompt_by_id, prompts_of
from spine.run import Run
from spine.settings import CaptionConfig, Config


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_runs_own_prompts_stand_beside_those_that_come_with_popfactory(run):
    assert prompts_of(run) == PROMPTS
    run.prompts.write_text(
        '[terse-1]\ntext = "What is it? Say ‘It is’:"\nprefix = "It is"\n\n[bare]\ntext = "Describe."\n'
    )

    found = prompts_of(run)

    assert set(found) == {*PROMPTS, "terse-1", "bare"}
    assert (found["terse-1"].text, found["terse-1"].prefix) == ("What is it? Say ‘It is’:", "It is")
    assert found["bare"].prefix == ""
    assert prompt_by_id("bare", found).prompt_id == "bare"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[laion-pop]\ntext = "a"', "[laion-pop]: this prompt never changes"),
        ('["../x"]\ntext = "a"', "small letters, digits and -"),
        ("[x]", "[x] text: 1 to 8,000 signs"),
        ('[x]\ntext = "  "', "[x] text: 1 to 8,000 signs"),
        ('[x]\ntext = "Describe <image> in detail."', "[x] text: <image> stands for the picture"),
        ("[x]\ntext = 5", "text and prefix in quotes"),
        ('[x]\ntext = "a"\nprompt = "b"', "text and prefix in quotes"),
        ('x = "a"', "[x] text: 1 to 8,000 signs"),
        ("[x", "can't be read"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said_with_its_name(run, content, said):
    run.prompts.write_text(content)

    with pytest.raises(ConfigError) as caught:
        prompts_of(run)
    assert str(run.prompts) in str(caught.value) and said in str(caught.value)


def test_settings_may_name_a_prompt_of_the_run_and_no_other(run):
    write_config(run.config, Config(caption=CaptionConfig(prompt="terse-1")))
    with pytest.raises(ConfigError, match="'terse-1', one of laion-pop, detail, short was needed"):
        load_config(run.config)
    run.prompts.write_text('[terse-1]\ntext = "What is it?"\n')

    assert load_config(run.config).caption.prompt == "terse-1"


def test_the_prompt_of_2023_is_laions_paragraph_letter_for_letter():
    prompt = PROMPTS["laion-pop"]

    # Of the paragraph in LAION-AI/laion.ai, blog/laion-pop.md, as one line.
    assert prompt.digest == "a397d2eafedda03de9f37ce97da3372e4fdb39f3efaafab0f09b7b63a75fcf8e"
    assert (len(prompt.text), len(prompt.text.split())) == (1_070, 185)
    assert prompt.text.endswith("‘This image showcases’:") and prompt.prefix == "This image showcases"
