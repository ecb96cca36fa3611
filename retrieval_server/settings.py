"""What a server serves: from clip-retrieval's indices_paths.json, or from a run."""

import difflib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index_builder.indexing.index_file import COPIES_BYTES
from spine.config import load_config
from spine.errors import ConfigError
from spine.run import Run
from spine.settings import ClipConfig, ListsConfig

_log = logging.getLogger("popfactory.server")

DEFAULT_COLUMNS = ("url", "image_path", "caption", "NSFW")
"""What clip-retrieval returns where an entry doesn't say."""

_OPENAI = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
_OPEN_CLIP = {
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-g-14": "laion2b_s34b_b88k",
    "ViT-bigG-14": "laion2b_s39b_b160k",
}
_MCLIP = {"ViT-L/14": "M-CLIP/XLM-Roberta-Large-Vit-L-14", "ViT-B/32": "M-CLIP/XLM-Roberta-Large-Vit-B-32"}
_FLAGS = (
    "enable_hdf5",
    "enable_faiss_memory_mapping",
    "reorder_metadata_by_ivf_index",
    "enable_mclip_option",
    "use_jit",
    "use_arrow",
    "provide_safety_model",
    "provide_violence_detector",
    "provide_aesthetic_embeddings",
)
_TEXTS = (
    "indice_folder",
    "clip_model",
    "mclip_model",
    "picture_folder",
    "safety_model",
    "violence_vectors",
    "aesthetic_vectors",
)
_KEYS = (*_TEXTS, *_FLAGS, "columns_to_return")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """One index, under its name on the wire."""

    name: str
    folder: Path
    """Holds image.index and metadata/."""
    clip: ClipConfig | None = None
    """Model for text and picture queries; None: embeddings only."""
    mclip: str = ""
    """Multi-CLIP checkpoint for use_mclip, a folder or a name on the hub; empty: there is none."""
    reordered: bool = False
    """Ids on the wire are places in the inverted lists laid end to end: reorder_metadata_by_ivf_index."""
    memory_map: bool = True
    """Leave the index on disk and let the system bring in what is read."""
    copies_bytes: int = COPIES_BYTES
    """Memory that copies which make its search faster may take."""
    columns: tuple[str, ...] | None = None
    """Metadata that answers carry; None is all there is."""
    picture_folder: Path | None = None
    """Pictures that the column image_path names are put into answers, if they lie in here; None: none are."""
    safety_head: str = ""
    """NSFW head for use_safety_model, or "demo"; empty: there is none."""
    violence_vectors: str = ""
    """Two prompts for use_violence_detector, as in [score] violence_prompts; empty: there is none."""
    aesthetic_vectors: str = ""
    """Folder with rating0.npy to rating9.npy for aesthetic_score, or "demo"; empty: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """A server."""

    indices: tuple[IndexSettings, ...]
    """The first serves requests that name none."""
    image_url: bool = False
    """Fetch the pictures that queries name by address, public addresses only."""
    origins: tuple[str, ...] = ()
    """Web pages' origins that may ask from a browser (CORS)."""
    hosts: tuple[str, ...] = ()
    """Names this server is asked by, beside those of the loopback; only they are answered there."""
    proxies: tuple[str, ...] = ()
    """Addresses of proxies in front: from them alone X-Forwarded-For and X-Forwarded-Proto count."""
    strict_safety: bool = False
    """Refuse a query whose safety or violence filter isn't there, instead of answering with a warning."""
    search_threads: int = 0
    """Threads that search; 0 is one a core, but one of three and more."""
    waiting: int = 256
    """Requests that may be at work or wait for a thread; more are answered 503."""
    waiting_bytes: int = 256_000_000
    """Of their bodies together; more are answered 503."""
    lists: ListsConfig = field(default_factory=ListsConfig)
    """Takedown and hash lists: what they name is in no answer."""
    lists_folder: Path = Path()
    """What relative paths of lists start from."""
    lists_from: Path | None = None
    """A popfactory.toml whose [lists] count instead of `lists`; read again when it changes."""


def settings_for_run(run: Run) -> ServerSettings:
    """Serve a run's index, built or named by [pool] index, with the models the run is set to.

    Args:
        run: Its folder's name is the index's name.

    Raises:
        ConfigError: The run's pool is a server itself, or there is no index yet.
    """
    config = load_config(run.require().config)
    if config.pool.server:
        raise ConfigError(
            f"{run.config}: [pool] server is {config.pool.server}: ask that one, there is no index here"
        )
    folder = Path(config.pool.index).expanduser() if config.pool.index else run.index
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no index folder; run `popfactory index {run.folder}` first")
    index = IndexSettings(
        name=run.folder.resolve().name,
        folder=folder,
        clip=config.clip,
        safety_head=config.score.unsafe_head,
        violence_vectors=config.score.violence_prompts,
        aesthetic_vectors=config.score.aesthetic_query_vectors,
    )
    return ServerSettings(indices=(index,), lists_folder=run.folder, lists_from=run.config)


def load_indices_paths(path: Path) -> ServerSettings:
    """Read clip-retrieval's indices_paths.json: {"name": "folder"} or {"name": {options}}.

    Options an entry lacks have clip-retrieval's defaults; they never come from another entry. Three of ours
    name files that clip-retrieval downloads: safety_model, violence_vectors and aesthetic_vectors.

    Raises:
        ConfigError: The file can't be read, a folder isn't there, or an option can't be what it is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f'{path}: missing; {{"NAME": "INDEX FOLDER"}} was needed') from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: can't be read as JSON ({error})") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f'{path}: {{"NAME": "INDEX FOLDER"}} was needed, with one name at least')
    return ServerSettings(indices=tuple(_entry(path, name, entry) for name, entry in content.items()))


def _entry(path: Path, name: str, entry: object) -> IndexSettings:
    options: Mapping[str, Any] = (
        {"indice_folder": entry} if isinstance(entry, str) else _checked(path, name, entry)
    )
    place = f"{path}: {name!r}"
    if not options.get("indice_folder"):
        raise ConfigError(f"{place}: no indice_folder")
    folder = Path(options["indice_folder"]).expanduser()
    if not folder.is_dir() and not folder.is_absolute():
        folder = (
            path.parent / folder
        )  # clip-retrieval looks from where it is started; a file moves with its folders
    if not folder.is_dir():
        raise ConfigError(f"{place}: there is no folder {options['indice_folder']}")
    for flag, key in (
        ("provide_safety_model", "safety_model"),
        ("provide_violence_detector", "violence_vectors"),
    ):
        if options.get(flag) and not options.get(key):
            _log.warning("%s: %s is on, but %s names no file: answers will carry a warning", name, flag, key)
    return IndexSettings(
        name=name,
        folder=folder,
        clip=_clip(place, options.get("clip_model", "ViT-B/32")),
        mclip=_mclip(place, options),
        picture_folder=_picture_folder(place, options.get("picture_folder", "")),
        reordered=options.get("reorder_metadata_by_ivf_index", False),
        memory_map=options.get("enable_faiss_memory_mapping", False),
        columns=tuple(options.get("columns_to_return", DEFAULT_COLUMNS)),
        safety_head=options.get("safety_model", ""),
        violence_vectors=options.get("violence_vectors", ""),
        aesthetic_vectors=options.get("aesthetic_vectors", ""),
    )


def _mclip(place: str, options: Mapping[str, Any]) -> str:
    """The checkpoint named, or the one clip-retrieval takes for this clip_model."""
    if not options.get("enable_mclip_option"):
        return ""
    clip_model = options.get("clip_model", "ViT-B/32")
    found = str(options.get("mclip_model") or _MCLIP.get(clip_model, ""))
    if not found:
        raise ConfigError(
            f"{place}: enable_mclip_option: there is no Multi-CLIP known for {clip_model}; name one as mclip_model"
        )
    return found


def _picture_folder(place: str, folder: str) -> Path | None:
    if folder and not Path(folder).expanduser().is_dir():
        raise ConfigError(f"{place}: picture_folder: there is no folder {folder}")
    return Path(folder).expanduser() if folder else None


def _checked(path: Path, name: str, entry: object) -> Mapping[str, Any]:
    place = f"{path}: {name!r}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{place}: a folder or an object of options was needed")
    for key, value in entry.items():
        if key in _FLAGS and not isinstance(value, bool):
            raise ConfigError(f"{place}: {key} is {value!r}, true or false was needed")
        if key in _TEXTS and not isinstance(value, str):
            raise ConfigError(f"{place}: {key} is {value!r}, a text was needed")
        if key == "columns_to_return" and not (
            isinstance(value, list) and all(isinstance(column, str) for column in value)
        ):
            raise ConfigError(f"{place}: columns_to_return is {value!r}, a list of texts was needed")
        if key not in _KEYS:  # clip-retrieval takes any key, so that a file with more of them still serves
            near = difflib.get_close_matches(key, _KEYS, n=1)
            _log.warning(
                "%s: %s is unknown and has no effect%s", name, key, f"; is it {near[0]}?" if near else ""
            )
    return entry


def _clip(place: str, name: str) -> ClipConfig | None:
    """The model that clip-retrieval calls `name`; an empty name is none."""
    if not name:
        return None
    if name == "demo":
        return ClipConfig(model="demo", pretrained="")
    if name in _OPENAI:
        return ClipConfig(model=_OPENAI[name], pretrained="openai")
    model, _, pretrained = name.removeprefix("open_clip:").partition("/")
    pretrained = pretrained or _OPEN_CLIP.get(model, "")
    if name.startswith("open_clip:") and pretrained:
        return ClipConfig(model=model, pretrained=pretrained)
    raise ConfigError(
        f"{place}: clip_model {name!r} is unknown; demo, {', '.join(_OPENAI)} "
        "or open_clip:ARCHITECTURE/WEIGHTS was needed"
    )
