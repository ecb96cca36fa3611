"""Hashes of how pictures look: found through their pieces exactly as by comparing each with each."""

import numpy as np

from spine import looks
from spine.looks import PDQ_DISTANCE, Looks


def test_what_is_near_is_what_plain_comparison_finds(monkeypatch):
    monkeypatch.setattr(looks, "_FEW", 0)
    monkeypatch.setattr(looks, "_AT_ONCE", 500)  # several rounds
    random = np.random.default_rng(2)
    listed = random.integers(0, 2**64, (300, 4), dtype=np.uint64)
    bits = np.unpackbits(listed[random.integers(0, 300, 4_000)].view(np.uint8), axis=1)
    for row, flips in enumerate(random.integers(0, 50, 4_000)):
        bits[row, random.choice(256, flips, replace=False)] ^= 1
    asked = np.packbits(bits, axis=1).view(np.uint64)

    found = Looks.of(listed).near(asked)

    plain = (np.bitwise_count(asked[:, None] ^ listed).sum(axis=2) <= PDQ_DISTANCE).any(axis=1)
    assert np.array_equal(found, plain)
    assert 0.3 < plain.mean() < 0.9
    assert not Looks.of(listed[:0]).near(asked).any()
    assert Looks.of(listed).near(asked[:0]).shape == (0,)
