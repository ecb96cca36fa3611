"""LAION's weights by name: fetched once, on first use, and taken only if their SHA-256 is the one written here.

They lie in popfactory's cache folder (`cache_folder`), named by their SHA-256, so that a machine without a network
needs the very same files and nothing else. LAION's H/14 detector and its watermark classifier are not among them:
no copy was at hand to take their SHA-256 from, so they are named by path.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from spine.errors import ModelError, WebError
from spine.publish import publish_bytes
from spine.web import Web

_RAW = "https://raw.githubusercontent.com"
_V1 = f"{_RAW}/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f"
_V2 = f"{_RAW}/christophschuhmann/improved-aesthetic-predictor/6934dd81792f086e613a121dbce43082cb8be85e"
_NSFW = f"{_RAW}/LAION-AI/CLIP-based-NSFW-Detector/d6bb8fe31fd4aecbfed7dfb62df4fe5858bfc014"
_LARGEST = 20_000_000  # bytes
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights."""

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name."""
        return unquote(self.url.rsplit("/", 1)[1])


KNOWN: dict[str, Weights] = {
    "laion-aesthetic-v1-l14": Weights(
        f"{_V1}/sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    ),
    "laion-aesthetic-v1-b32": Weights(
        f"{_V1}/sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
    ),
    "laion-aesthetic-v1-b16": Weights(
        f"{_V1}/sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
    ),
    "laion-aesthetic-v2-l14": Weights(
        f"{_V2}/sac%2Blogos%2Bava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    ),
    "laion-nsfw-l14": Weights(
        f"{_NSFW}/clip_autokeras_binary_nsfw.zip",
        "905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
    ),
    "laion-nsfw-b32": Weights(
        f"{_NSFW}/clip_autokeras_nsfw_b32.zip",
        "78715ab9d64485167e8c9ade3b8e6761a17a16c24d114bd47431ac1dab46462b",
    ),
    "laion-violence-l14": Weights(
        f"{_NSFW}/violence_detection_vit_l_14.npy",
        "cc08f81ef50b1ef71452ddc87285fe6fbbc01b6fe8f8b8c24482c386ef2ab7e1",
    ),
    "laion-violence-b32": Weights(
        f"{_NSFW}/violence_detection_vit_b_32.npy",
        "76909cca3e77abbbb21313895756773a9c6fb26c9cc743f3ef0625f025741982",
    ),
}
"""Heads that [score] may name instead of a file."""

_RATINGS = {
    "laion-ratings-l14": (
        "vit_l_14_embeddings",
        "ece2e6f5dffe1f81b9f488fc8a078c29462d44463448393af7b60c93bf33fb1b",
        "8b3970dda1475b67f9d7eaebb0f15292435ef81359aeb29bbaa56bab5a6cee9b",
        "2fbb46eab2240454f6d81d3e2713fe067e22ceabcdaa00a67b44148ddc4a58d7",
        "affc5e25225a0b8de68ebe4bf194a7c4bb33a2e3fd4ea4201e428b80490425f5",
        "8de9c65431d5eaa823ba3ff9db749d5f394b89456d1bee8dc32247abae075484",
        "630e0d67aff97eeaf60211a30cf48e26c301fb1e0f29a6977a50bc56f1f3bdf9",
        "ae1537d1e1c041e948ecf4c40e52cf8949d24601551c5ba72bd28566a9389473",
        "a34b95ce2251d072bcb950abe96728739439c7d23f84bb0b01ae61c9f389214e",
        "3e23cbf0bf5ba5c768fbcba3c379ce5dcc639e22bb41b3c78e24dc63a5c3f9ae",
        "c500ee887b3382d9c48625da1eca8635d63fb18055ed57ec95225608a1e46828",
    ),
    "laion-ratings-b32": (
        "vit_b_32_embeddings",
        "c7079b161f5656e9016de6acf45b46438299682b65a6e8b556ab64bc91672657",
        "fc51b3dcb67df1ba779b2ba5dc075b014d875e5e3ea18299769fce7375075bd6",
        "1d6b5bbf88624eb080970d5e6e4f7c11b924d9b7069d82547499d4fbd439d500",
        "b62132442d499fcbe6fac155a4cd918cf9c1f275b987bd827db2242800cc1567",
        "fbe065d6e0120c90161963769535869bed8f8eda85b2360d78547f96b81f4b4f",
        "5566bffd5766e25aba477a65969d53aac2fba9d80c5cce65448b6b299cfbaa64",
        "c18a22c6289d8ae969a749e5d9ad92f1ee9822070f0bef913fe518abee40fa2a",
        "37b0ae988dbcf3ae67bb984c6572c8f9faa370e9393bfbaf91f794861d01e249",
        "48d928ea36c3d5ddb6f2f52051821d7fce0bd488eb4915c89f5dca89439298b5",
        "edbf4bfe1ac0d353e05343b55296ef4cfb780ffd8b1c63553d5059bc739e93c0",
    ),
}

RATINGS: dict[str, tuple[Weights, ...]] = {
    name: tuple(
        Weights(f"{_V1}/{folder}/rating{rating}.npy", sha256) for rating, sha256 in enumerate(digests)
    )
    for name, (folder, *digests) in _RATINGS.items()
}
"""Rating vectors 0 to 9 that [score] aesthetic_query_vectors may name instead of a folder."""


def cache_folder() -> Path:
    """Where fetched weights lie: $XDG_CACHE_HOME/popfactory/weights, or that in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "popfactory" / "weights"


def weights_file(name: str, weights: Weights, web: Web | None = None) -> Path:
    """The file of known weights, fetched if it isn't here yet.

    Args:
        name: What a person calls them, for the message.
        weights: Where they are, and what they must be.
        web: The way to the network; None is the public web.

    Raises:
        ModelError: They are not here and can't be fetched, or what came is something else.
    """
    path = cache_folder() / f"{weights.sha256[:16]}-{weights.file}"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256:
        return path
    help_ = f"get {weights.url} and put it at {path}, or name a file of your own"
    try:
        if web is not None:
            content = web.fetch(weights.url).content
        else:
            with Web(timeout_s=_TIMEOUT_S, max_bytes=_LARGEST, connections=1) as own:
                content = own.fetch(weights.url).content
    except WebError as error:
        raise ModelError(
            f"{name}: its weights are not here and can't be fetched ({error.reason}); {help_}"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise ModelError(
            f"{name}: {weights.url} gave SHA-256 {found[:16]}…, {weights.sha256[:16]}… was needed; {help_}"
        )
    publish_bytes(path, content)
    return path
