"""What a person can get wrong ends in one line that says what to do, and costs nothing else."""

import socket
import subprocess
import time

from PIL import Image

from spine.manifest import read_manifest
from tests.e2e.support import small_run
from tests.small_disk import small_disk


def _pictures(folder, colours):
    folder.mkdir()
    for number, colour in enumerate(colours):
        Image.new("RGB", (300, 300), colour).save(folder / f"{number}.png")
    return folder


def _one_line(done):
    """The one line of a command that failed with it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("popfactory:")]
    return line


def test_an_empty_folder_is_named(popfactory, tmp_path):
    (tmp_path / "none").mkdir()
    run = small_run(tmp_path / "run", tmp_path / "none", tmp_path / "none")
    line = _one_line(popfactory("run", run.folder))
    assert str(tmp_path / "none") in line and "no pictures" in line


def test_one_picture_is_enough_for_one_centroid(popfactory, tmp_path):
    source = _pictures(tmp_path / "one", ["red"])
    run = small_run(tmp_path / "run", source, source)
    done = popfactory("run", run.folder)
    assert done.returncode == 0, done.stderr
    assert read_manifest(run.centroids).facts["k"] == 1
    assert "lower" in done.stderr


def test_a_wrong_setting_stops_before_any_work(popfactory, tmp_path):
    source = _pictures(tmp_path / "one", ["red"])
    run = small_run(tmp_path / "run", source, source)
    run.config.write_text(run.config.read_text().replace("iterations", "iteration"))
    line = _one_line(popfactory("run", run.folder))
    assert "popfactory.toml: [centroids] iteration" in line and "did you mean iterations?" in line
    assert not run.concepts.exists()


def test_a_folder_that_is_no_run_is_named(popfactory, tmp_path):
    for command in ("run", "status", "centroids", "verify", "ui"):
        line = _one_line(popfactory(command, tmp_path / "nowhere"))
        assert str(tmp_path / "nowhere") in line and "popfactory init" in line


def test_stages_out_of_order_say_what_is_missing(popfactory, tmp_path):
    source = _pictures(tmp_path / "some", ["red", "blue"])
    run = small_run(tmp_path / "run", source, source)
    for command in ("centroids", "index", "retrieve", "fetch", "score", "select", "caption", "release"):
        assert str(run.folder) in _one_line(popfactory(command, run.folder))


def test_the_board_does_not_open_on_settings_with_a_slip_in_them(popfactory, tmp_path):
    source = _pictures(tmp_path / "one", ["red"])
    run = small_run(tmp_path / "run", source, source)
    run.config.write_text(run.config.read_text().replace("[select]", "[selct]"))
    assert "[selct] is unknown; did you mean select?" in _one_line(popfactory("ui", run.folder, "--port", 1))


def test_a_file_where_a_folder_was_needed_and_a_file_of_something_else_are_named(popfactory, tmp_path):
    source = _pictures(tmp_path / "one", ["red"])
    assert "a folder was needed" in _one_line(popfactory("init", source / "0.png" / "run"))
    run = small_run(tmp_path / "run", source, source)
    done = popfactory("caption", run.folder, "--only-from", source / "0.png")
    assert done.returncode == 2 and "is no id" in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_one_line_before_anything_is_loaded(popfactory, demo_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (["serve", "--run", demo_run.folder], ["serve-captions", "demo"]):
            done = popfactory(*command, "--port", port)
            assert done.stderr == f"popfactory: {_one_line(done).partition(' ')[2]}\n"
            assert f"127.0.0.1:{port}: can't listen there (Address already in use)" in done.stderr


def test_wrong_usage_exits_2(popfactory, tmp_path):
    for arguments in (
        ["nonsense"],
        ["embed", tmp_path, "neither"],
        ["run"],
        ["serve"],
        ["serve", "--port", "x"],
    ):
        done = popfactory(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_only_one_command_works_on_a_run(popfactory, drawings, tmp_path):
    import sys

    run = small_run(tmp_path / "run", drawings / "concepts", drawings / "pool")
    first = subprocess.Popen(
        [sys.executable, "-m", "popfactory", "run", str(run.folder), "--quiet"], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            if list(run.jobs.glob("*.jsonl")):
                break
            time.sleep(0.1)
        assert "at work here" in _one_line(popfactory("centroids", run.folder))
    finally:
        first.kill()
        first.wait()


def test_a_full_disk_is_one_line_and_the_run_goes_on(popfactory, drawings, tmp_path):
    with small_disk(tmp_path / "disk", "300k") as disk:
        run = small_run(disk / "run", drawings / "concepts", drawings / "pool")
        line = _one_line(popfactory("run", run.folder))
        assert str(run.folder) in line and "No space left on device" in line and "run it again" in line
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        done = popfactory("run", run.folder)
        assert done.returncode == 0, done.stderr


def test_a_read_only_disk_is_one_line_and_what_is_there_can_be_looked_at(popfactory, drawings, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        run = small_run(disk / "run", drawings / "concepts", drawings / "pool")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        line = _one_line(popfactory("run", run.folder))
        assert str(run.folder) in line and "Read-only file system" in line and "can be written to" in line
        assert popfactory("status", run.folder).returncode == 0
