import json

from captioner.engine import Prepared
from captioner.sending import Question, data_url, ready_to_send
from spine.prompts import PROMPTS, Prompt
from tests.unit.captioner.runs import noise

LAION = PROMPTS["laion-pop"]


def test_a_question_is_the_json_that_openai_asks_for_with_the_picture_first():
    fields = {"model": "m", "max_tokens": 8, "temperature": 0}
    image = noise(1)

    body = json.loads(b"".join(Question.of(LAION, fields).body(ready_to_send(image))))

    picture = {"type": "image_url", "image_url": {"url": data_url(image)}}
    content = [picture, {"type": "text", "text": LAION.text}]
    assert body == {"messages": [{"role": "user", "content": content}], "stream": False, **fields}


def test_a_prompt_of_odd_signs_parts_a_question_at_the_picture_alone():
    prompt = Prompt(prompt_id="odd", text='a \0 and "\\u0000" and \\0 … <image>', prefix="")

    question = Question.of(prompt, {"model": "\0"})

    body = json.loads(b"".join(question.body(Prepared(b'"P"', 1, 1))))
    picture, text = body["messages"][0]["content"]
    assert (picture["image_url"]["url"], text["text"], body["model"]) == ("P", prompt.text, "\0")
