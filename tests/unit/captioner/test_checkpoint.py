import json
import shutil

import pytest

from captioner import checkpoint
from captioner.checkpoint import DEMO_FOLDER, find_checkpoint
from spine.errors import ConfigError, ModelError


@pytest.fixture
def copy(tiny_llava, tmp_path):
    return shutil.copytree(tiny_llava, tmp_path / "copied")


def test_a_folder_is_named_after_itself_and_its_kind_is_read_from_its_config(tiny_llava):
    found = find_checkpoint(str(tiny_llava), "")

    assert (found.name, found.family, found.is_demo) == ("tiny-llava", "llava", False)
    assert found.size_bytes == (tiny_llava / "model.safetensors").stat().st_size


def test_the_digest_is_of_the_content_and_not_of_the_place(tiny_llava, copy):
    assert find_checkpoint(str(copy), "").digest == find_checkpoint(str(tiny_llava), "").digest


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "processor_config.json", "chat_template.jinja"]
)
def test_any_file_that_shapes_a_reply_changes_the_digest(copy, name):
    before = find_checkpoint(str(copy), "").digest
    content = bytearray((copy / name).read_bytes())
    content[-5] ^= 1
    (copy / name).write_bytes(content)

    assert find_checkpoint(str(copy), "").digest != before


def test_large_weights_are_told_apart_by_samples_over_the_whole_file(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(checkpoint, "_SAMPLE_BYTES", 100)
    digests = {find_checkpoint(str(copy), "").digest}
    weights = copy / "model.safetensors"
    for at in (10, -1):
        content = bytearray(weights.read_bytes())
        content[at] ^= 1
        weights.write_bytes(content)
        digests.add(find_checkpoint(str(copy), "").digest)

    assert len(digests) == 3


def test_the_demo_model_is_a_folder_of_the_package():
    if not DEMO_FOLDER.is_dir():
        pytest.skip("captioner/models/demo-llava is not there")

    found = find_checkpoint("demo", "")

    assert (found.name, found.family, found.is_demo) == ("demo-llava", "llava", True)
    assert find_checkpoint(str(DEMO_FOLDER), "") == found


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_named_with_it(copy, name):
    (copy / name).unlink()

    with pytest.raises(ModelError, match=r"no (config\.json|\*\.safetensors) here"):
        find_checkpoint(str(copy), "")


def test_a_config_that_is_no_json_is_named(copy):
    (copy / "config.json").write_text("{")

    with pytest.raises(ModelError, match=r"config\.json: can't be read"):
        find_checkpoint(str(copy), "")


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub():
    with pytest.raises(ModelError, match="no such folder"):
        find_checkpoint("/no/such/folder", "")


def test_a_name_that_no_hub_can_have_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="neither a folder nor a model's name"):
        find_checkpoint("a b c", "")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of downloads, and no network: what every download asks for first fails at once."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def download(hub, checkpoint_folder, commit="0123456789abcdef0123456789abcdef01234567"):
    """What a finished download of demo/llava leaves in the cache."""
    repository = hub / "models--demo--llava"
    shutil.copytree(checkpoint_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def test_weights_that_are_not_here_say_how_to_get_them(hub):
    with pytest.raises(ModelError) as caught:
        find_checkpoint("llava-hf/llava-1.5-7b-hf", "abc")

    assert "`hf download llava-hf/llava-1.5-7b-hf --revision abc`" in str(caught.value)
    assert "--demo-models" in str(caught.value)


def test_downloaded_weights_are_used_without_network_and_named_with_their_revision(hub, tiny_llava):
    folder = download(hub, tiny_llava)

    found = find_checkpoint("demo/llava", "")

    assert found.folder == folder
    assert found.name == "demo/llava@0123456789abcdef0123456789abcdef01234567"
    assert found.digest == find_checkpoint(str(tiny_llava), "").digest


def test_a_download_that_was_cut_off_does_not_count(hub, tiny_llava):
    folder = download(hub, tiny_llava)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match="can't be fetched"):
        find_checkpoint("demo/llava", "")
