"""The environment of autofaiss: what stops its making, and when it counts as there."""

import json
import shutil

import pytest

from index_builder.indexing import autofaiss
from index_builder.indexing.autofaiss import REQUIREMENTS, build_with_autofaiss, environment, set_up
from spine.errors import ConfigError, ServiceError
from spine.run import Run


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment() == tmp_path / "data" / "popfactory" / "autofaiss"


def interpreter(path, version):
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_that_is_not_there_or_too_new_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no-such: Python is not there, 3\.10 to 3\.12 was needed"):
        set_up(str(tmp_path / "no-such"))
    with pytest.raises(ConfigError, match=r"Python 3\.13, 3\.10 to 3\.12 was needed.*--python"):
        set_up(interpreter(tmp_path / "python3.13", "3 13"))
    assert not environment().exists()


def test_packages_that_can_not_be_had_are_told_and_leave_no_environment_that_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(ServiceError, match=r"pip failed: .*autofaiss"):
        set_up()
    with pytest.raises(ConfigError, match="popfactory autofaiss"):
        build_with_autofaiss(Run(tmp_path / "run"), 10**9)


def test_an_environment_of_other_packages_is_made_anew_and_a_whole_one_stays(tmp_path):
    (environment() / "bin").mkdir(parents=True)
    (environment() / "bin" / "autofaiss").touch()
    mark = environment() / "popfactory.json"
    mark.write_text(json.dumps({"requirements": ["autofaiss==1.0"]}))
    with pytest.raises(ConfigError, match="3.12 was needed"):
        set_up(interpreter(tmp_path / "python3.9", "3 9"))

    mark.write_text(json.dumps({"requirements": list(REQUIREMENTS)}))

    assert set_up(str(tmp_path / "no-such")) == environment()
    assert autofaiss._command() == str(environment() / "bin" / "autofaiss")
    shutil.rmtree(environment())
