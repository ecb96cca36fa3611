"""use_mclip with a true Multi-CLIP checkpoint, tiny and of random weights, in the layout of the published ones."""

import json
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from index_builder.encoding.multilingual_text import MultilingualText
from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server.settings import load_indices_paths
from spine.errors import ConfigError, ModelError
from spine.torchvision_ops import declare_missing_operators
from tests.integration.server_index import running

declare_missing_operators()
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel  # noqa: E402

WORDS = ["ein", "roter", "stern", "une", "étoile", "rouge", "赤い", "星"]
TEXTS = ["ein roter stern", "une étoile rouge", "赤い 星", "stern", "ein ein ein ein ein ein ein"]
D = 16


@pytest.fixture(scope="module", params=["safetensors", "bin"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m-clip") / "XLM-Roberta-Tiny"
    torch.manual_seed(0)
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=520,
    )
    config.save_pretrained(folder / "base")
    body, head = XLMRobertaModel(config), torch.nn.Linear(24, D)
    weights = {f"transformer.{name}": value for name, value in body.state_dict().items()}
    weights |= {f"LinearTransformation.{name}": value for name, value in head.state_dict().items()}
    weights["transformer.embeddings.position_ids"] = torch.arange(520)[None]  # as older checkpoints have
    weights = {name: value.detach().clone() for name, value in weights.items()}
    if request.param == "safetensors":
        save_file(weights, folder / "model.safetensors")
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "M-CLIP", "modelBase": "base", "transformerDimensions": 24, "numDims": D})
    )
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    marks = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    return folder


def by_hand(checkpoint: Path, text: str, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """One text without padding: the mean of what the transformer says of its tokens, turned by the last layer."""
    body = XLMRobertaModel(XLMRobertaConfig.from_pretrained(checkpoint / "base")).eval()
    body.load_state_dict(
        {
            name[12:]: value
            for name, value in weights.items()
            if name[:12] == "transformer." and "_ids" not in name
        }
    )
    tokens = [0, *(4 + WORDS.index(word) for word in text.split()), 2]
    with torch.inference_mode():
        mean = body(input_ids=torch.tensor([tokens]))[0][0].numpy().mean(axis=0)
    vector = (
        weights["LinearTransformation.weight"].numpy() @ mean + weights["LinearTransformation.bias"].numpy()
    )
    return vector / np.linalg.norm(vector)


def stored_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    if (checkpoint / "pytorch_model.bin").exists():
        return torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")


def test_texts_together_get_the_vectors_that_each_gets_alone(checkpoint):
    weights = stored_weights(checkpoint)
    embedded = MultilingualText.load(str(checkpoint)).encode_texts(TEXTS)
    for text, vector in zip(TEXTS, embedded, strict=True):
        assert vector == pytest.approx(by_hand(checkpoint, text, weights), abs=1e-5)
    assert MultilingualText.load(str(checkpoint)).encode_texts(["stern " * 5000]).shape == (1, D)


def test_use_mclip_searches_by_the_multilingual_model_and_is_refused_without(checkpoint, tmp_path: Path):
    vectors = np.random.default_rng(0).standard_normal((50, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(D)
    index.add(vectors)
    (tmp_path / "i").mkdir()
    faiss.write_index(index, str(tmp_path / "i" / "image.index"))
    write_metadata(
        tmp_path / "i" / "metadata" / "0.arrow", pa.table({"caption": [str(row) for row in range(50)]})
    )
    with_it = {
        "indice_folder": "i",
        "clip_model": "",
        "enable_mclip_option": True,
        "mclip_model": str(checkpoint),
    }
    entries = {"with": with_it, "without": {"indice_folder": "i", "clip_model": ""}}
    entries["damaged"] = with_it | {"mclip_model": str(tmp_path / "i")}
    (tmp_path / "indices_paths.json").write_text(json.dumps(entries))
    expected = by_hand(checkpoint, TEXTS[1], stored_weights(checkpoint))
    with running(load_indices_paths(tmp_path / "indices_paths.json")) as address:
        body = {"text": TEXTS[1], "use_mclip": True, "num_images": 5}
        answers = {
            name: httpx.post(f"{address}/knn-service", json=body | {"indice_name": name}, timeout=60)
            for name in entries
        }
    found = [result["id"] for result in answers["with"].json()]
    assert found == np.argsort(-(vectors @ expected), kind="stable")[:5].tolist()
    for name in ("without", "damaged"):
        assert (answers[name].status_code, answers[name].json()["code"]) == (400, "no_model")
        assert str(tmp_path) not in answers[name].text


def test_a_model_that_has_no_multilingual_one_must_name_it(tmp_path: Path):
    (tmp_path / "i").mkdir()
    entry = {"indice_folder": "i", "clip_model": "ViT-B/16", "enable_mclip_option": True}
    (tmp_path / "indices_paths.json").write_text(json.dumps({"pool": entry}))
    with pytest.raises(ConfigError, match="name one as mclip_model"):
        load_indices_paths(tmp_path / "indices_paths.json")
    with pytest.raises(ModelError, match="can't be loaded"):
        MultilingualText.load(str(tmp_path / "i"))
