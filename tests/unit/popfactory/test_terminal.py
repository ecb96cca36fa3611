import io
import sys
import time

import pytest

from popfactory.terminal import TerminalProgress
from spine.jobs import Journal, read_job
from spine.progress import Chorus
from spine.run import Run


class _Screen(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_tells_the_rate_and_the_time_left_that_the_journal_tells(tmp_path, monkeypatch):
    screen, clock = _Screen(), [1_000.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("time", "monotonic"):
        monkeypatch.setattr(time, name, lambda: clock[0])
    journal, terminal = Journal(Run(tmp_path), ["embed"]), TerminalProgress()
    both = Chorus(journal, terminal)

    both.begin("embed pool", 7_200, "images", done=100)
    for second in range(1, 11):  # the first ones come slowly
        clock[0] += 1
        both.advance(1 if second <= 2 else 2)
    terminal._bars.refresh()
    terminal.close()

    job = read_job(Run(tmp_path), journal.job_id)
    assert job.rate == 2 and job.eta_s == pytest.approx((7_200 - 118) / 2)
    shown = screen.getvalue()
    assert "118/7200" in shown and "2.0/s" in shown and "0:59:01" in shown
