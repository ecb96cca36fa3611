import re
import time

from popfactory.report import status_json, status_lines
from spine.config import write_config
from spine.jobs import Journal
from spine.run import Run
from spine.settings import Config, PoolConfig


def test_status_tells_a_working_jobs_rate_time_left_and_failures_by_kind(tmp_path):
    run = Run(tmp_path)
    write_config(run.config, Config())
    journal = Journal(run, ["embed", "runs/a", "pool"])
    journal.begin("embed pool", 4_000, "images", done=1_000)
    time.sleep(0.01)
    journal.advance(500, {"not_an_image": 3})
    time.sleep(0.6)  # a journal is written twice a second at most
    journal.advance(500, {"not_an_image": 1, "timeout": 2})

    (line,) = [line for line in status_lines(run) if "popfactory embed" in line]

    told = re.search(
        r"running +popfactory embed runs/a pool +embed pool: 2,000 of 4,000 images, ([0-9.]+)/s, ([0-9]+) s left;"
        r" failed: not_an_image 4, timeout 2$",
        line,
    )
    assert told is not None, line
    assert abs(float(told[2]) - 2_000 / float(told[1])) <= 1
    (job,) = status_json(run)["jobs"]
    assert (job["done"], job["failures"]) == (2_000, {"not_an_image": 4, "timeout": 2})
    assert abs(job["eta_s"] * job["rate"] - 2_000) < 1e-6 * 2_000


def test_status_does_not_call_a_pool_unfinished_that_the_settings_name_elsewhere(tmp_path):
    run = Run(tmp_path)
    write_config(run.config, Config())
    assert len([line for line in status_lines(run) if line.endswith("not finished")]) == 9

    write_config(run.config, Config(pool=PoolConfig(index=str(tmp_path))))
    told = dict(line.split(maxsplit=1) for line in status_lines(run))
    assert {name for name, state in told.items() if "not needed" in state} == {"pool", "index"}
