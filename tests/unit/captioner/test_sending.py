import asyncio

import httpx

from captioner.sending import Question


def test_few_questions_set_out_at_a_time_and_none_of_them_waits_for_an_answer():
    async def tried():
        gate, answered = asyncio.Semaphore(2), asyncio.Event()
        setting_out, most, sent = 0, 0, []

        async def asked(number):
            nonlocal setting_out, most
            async with Question(str(number).encode(), gate) as question:
                setting_out += 1
                most = max(most, setting_out)
                await asyncio.sleep(0)  # as its head is sent
                setting_out -= 1
                if number == 1:
                    return  # as where nobody listens
                sent.extend([part async for part in question.content()])
                await answered.wait()

        asking = [asyncio.create_task(asked(number)) for number in range(7)]
        while len(sent) < 6:
            await asyncio.sleep(0)
        answered.set()
        await asyncio.gather(*asking)
        places = [gate.acquire() for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*places), 1)
        return most, sent, gate.locked()

    most, sent, both_places_given_back_once = asyncio.run(asyncio.wait_for(tried(), 30))

    assert most == 2
    assert sent == [b"0", b"2", b"3", b"4", b"5", b"6"]
    assert both_places_given_back_once


def test_a_question_goes_in_one_piece_of_a_length_that_is_said_before():
    question = Question("größer".encode(), asyncio.Semaphore(1))

    request = httpx.Request("POST", "http://127.0.0.1/", content=question.content(), headers=question.headers)

    assert request.headers["content-length"] == "8"
    assert "transfer-encoding" not in request.headers
