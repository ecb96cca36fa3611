import pytest

from spine.errors import ConfigError
from spine.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("8GB", 8 * 10**9), ("512 MiB", 2**29), ("1000", 1000), ("1.5kb", 1500), (" 2TB ", 2 * 10**12)],
)
def test_sizes_read_as_people_write_them(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 parsec", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)


def test_sizes_print_short():
    assert [format_size(size) for size in (7, 1200, 2.5e9, 3e15)] == ["7 B", "1.2 kB", "2.5 GB", "3000.0 TB"]
