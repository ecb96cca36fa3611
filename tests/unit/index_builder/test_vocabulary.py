import numpy as np
import pytest

from index_builder.clustering.vocabulary import named_by_vocabulary, nearest_entries, read_vocabulary
from index_builder.encoding.clip import ClipEncoder, clip_name
from popfactory.demo_drawing import draw
from popfactory.demo_world import COLOURS, SHAPES, Group, Kind, Scene
from spine.errors import DataError
from spine.progress import SILENT
from spine.settings import ClipConfig

DEMO = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=32)


def test_the_vocabulary_that_comes_along_has_each_entry_once():
    entries = read_vocabulary("builtin")

    assert len(entries) > 450 and len(set(entries)) == len(entries)
    assert all(entry == entry.strip() and not entry.startswith("#") for entry in entries)


def test_a_vocabulary_of_ones_own_is_a_file_with_an_entry_a_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# what I like\n  red star \n\nblue ring\nred star\n")

    assert read_vocabulary(str(path)) == ["red star", "blue ring"]


@pytest.mark.parametrize("content", [None, "\n# none\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(DataError, match=r"words\.txt"):
        read_vocabulary(str(path))


def test_an_entry_near_to_everything_names_nothing():
    everything, first, second = np.eye(3)
    texts = np.stack([everything, first, second]).astype(np.float32)
    centroids = np.stack([0.9 * everything + 0.4 * first, 0.9 * everything + 0.4 * second]).astype(np.float32)

    named = nearest_entries(centroids, texts, ["picture", "cat", "dog"])

    assert [label.split(", ")[0] for label in named] == ["cat", "dog"]
    assert nearest_entries(centroids[:1], texts, ["picture", "cat", "dog"]) == ["picture, cat"]


def test_the_demo_model_names_drawn_pictures_by_what_they_show(tmp_path):
    encoder, random = ClipEncoder.load(DEMO), np.random.default_rng(0)
    kinds = [("red", "star"), ("blue", "ring"), ("green", "square"), ("yellow", "cross"), ("pink", "circle")]
    centroids = []
    for colour, shape in kinds:
        scenes = [
            Scene(
                groups=(
                    Group(Kind(colour, shape, "large"), tuple(sorted(random.choice(9, 3, replace=False)))),
                ),
                background=("navy", "gray", "cream")[i % 3],
                pattern="plain",
                light="even",
                style="flat",
            )
            for i in range(6)
        ]
        pixels = np.stack([encoder.preprocess(draw(scene, 160, 160)) for scene in scenes])
        centroids.append(encoder.encode_images(pixels).mean(axis=0))
    middles = np.stack(centroids)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES))

    named = named_by_vocabulary(middles, DEMO, str(words), encoder.name, SILENT)

    assert named is not None
    assert [label.split(", ")[0] for label in named] == [" ".join(kind) for kind in kinds]


def test_without_a_vocabulary_or_its_model_there_are_no_names():
    class Heard:
        lines = ()

        def say(self, line):
            self.lines += (line,)

    heard, centroids = Heard(), np.eye(4, dtype=np.float32)
    missing = ClipConfig(model="ViT-B-32", pretrained="/no/such/weights.pt", device="cpu")

    assert named_by_vocabulary(centroids, DEMO, "", "demo-clip", heard) is None and heard.lines == ()
    assert named_by_vocabulary(centroids, DEMO, "builtin", "other", heard) is None
    assert named_by_vocabulary(centroids, missing, "builtin", clip_name(missing), heard) is None
    assert "embeddings are of other" in heard.lines[0] and "no names from a vocabulary" in heard.lines[1]
