"""Lines of the access log, which wait for each other."""

import asyncio
import logging

from retrieval_server.access_log import WRITE_S, AccessLines


def test_lines_come_together_in_order_and_once(caplog):
    async def work() -> None:
        lines = AccessLines()
        lines.add(b"first")
        lines.add(b"second")
        assert not caplog.records
        await asyncio.sleep(3 * WRITE_S)
        lines.add(b"third")
        lines.write()  # the server ends
        await asyncio.sleep(3 * WRITE_S)

    with caplog.at_level(logging.INFO, "popfactory.access"):
        asyncio.run(work())
    assert [record.message for record in caplog.records] == ["first\nsecond", "third"]
