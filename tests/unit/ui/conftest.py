"""A planted run for the board's tests."""

import pytest

from tests.unit.ui.planted import Planted, plant


@pytest.fixture
def planted(tmp_path) -> Planted:
    return plant(tmp_path / "run")
