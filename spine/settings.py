"""Every setting of popfactory.toml: a frozen dataclass a table, its meaning under each field.

The defaults here are the only ones. `spine.config` reads and writes them.
"""

from dataclasses import dataclass, field

TWO_STEP = "two-step"
"""The [fetch] mode that keeps small copies of what isn't selected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """The model that turns pictures and words into embeddings."""

    model: str = "ViT-L-14"
    """open_clip's name of the architecture, or "local-dir:FOLDER"; "demo" is the small model of popfactory's own."""

    pretrained: str = "openai"
    """open_clip's name of the weights, or a path to them."""

    device: str = "auto"
    """auto (every CUDA device there is, else the CPU), cpu, cuda, or several such as cuda:0,cuda:1: embed starts a
    process for each."""

    precision: str = "auto"
    """What embed calculates in on a CPU: fp32, bf16, or auto for bf16 where that is clearly faster; on CUDA fp16."""

    batch_size: int = 0
    """Pictures a step; 0 finds it: 64 on a CPU, on CUDA as many as still make it faster. Halved by itself when memory
    runs out."""

    workers: int = 0
    """Processes that decode pictures; 0 is one a core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptsConfig:
    """The pictures that set the taste."""

    source: str = ""
    """A folder of pictures, WebDataset tars, Parquet with bytes or addresses, or a folder of embeddings that exist
    already: clip-retrieval's img_emb and metadata, DataComp's .npz and .parquet."""

    download: bool = True
    """Fetch what has only an address to embed it, within the limits of [fetch]; its bytes are not kept. false counts
    it as not_local."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """What is searched: pictures to embed, an index that exists, or a server. One of the three."""

    source: str = ""
    """A folder of pictures, WebDataset tars, Parquet with bytes or addresses, or a folder of embeddings that exist
    already: clip-retrieval's img_emb and metadata, DataComp's .npz and .parquet."""

    download: bool = True
    """Fetch what has only an address to embed it, within the limits of [fetch]; its bytes are not kept. false counts
    it as not_local."""

    index: str = ""
    """A clip-retrieval index folder that exists."""

    server: str = ""
    """Address of a clip-retrieval back end, such as http://127.0.0.1:1234."""

    indice_name: str = ""
    """Which of the server's indices; empty is its first."""

    token_variable: str = "POPFACTORY_POOL_TOKEN"
    """Environment variable that holds the server's bearer token; where it isn't set none is sent. The token itself
    never stands in a run."""

    side_tables: tuple[str, ...] = ()
    """Parquet files, or folders of them, that tell punsafe, pwatermark, aesthetic or size by LAION's hash (or by url
    and text), and LAION's sorted records of these: retrieve fills in what the pool doesn't say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CentroidsConfig:
    """How the concepts are found."""

    k: int = 10_000
    """Centroids, one a concept; LAION-POP used 10,000. Lowered, and said, where there are fewer pictures."""

    iterations: int = 20
    """Rounds of assigning and averaging."""

    seed: int = 0
    """Same seed and data, same centroids."""

    spherical: bool = True
    """Scale centroids to unit length in each round; false is plain k-means, scaled at the end."""

    method: str = "auto"
    """auto, exact (each picture against every centroid), neighbours (against those near it), faiss-kmeans or
    faiss-superkmeans (FAISS's own; all embeddings in memory)."""

    exact_assignment: bool = False
    """Compare each picture with every centroid at the end; without, `neighbours` counts it to the nearest it met."""

    vocabulary: str = "builtin"
    """What names centroids without captions: builtin, a text file with a word or phrase a line, or empty for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How the pool's index is built."""

    memory_budget: str = "8GB"
    """What the index may take in memory; a tighter budget means coarser codes."""

    recall: float = 0.95
    """Share of the exact 100 nearest that a search is to find; by it, measured on the pool, nprobe is chosen, and how
    many candidates are ranked. Changed, the index is measured again, not built."""

    keep_vectors: bool = True
    """Keep the vectors as float16 beside coarse codes, 2·d bytes each on disk, and rank what is found on them."""

    factory: str = ""
    """FAISS's name of the index to build, such as "OPQ64_256,IVF4096,PQ64"; empty lets the planner choose."""

    builder: str = "planner"
    """planner (ours) or autofaiss (in an environment of its own, which `popfactory autofaiss` makes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AestheticQuery:
    """Pull each query towards beautiful pictures: q' = normalise(q + weight * rating vector)."""

    rating: int = 9
    """0 to 9; 9 is the most beautiful."""

    weight: float = 0.0
    """0 is off; LAION-POP used 0.5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieveConfig:
    """How neighbours are asked for."""

    aesthetic_query: AestheticQuery = field(default_factory=AestheticQuery)
    """A weight of 0.5 is, on the evidence, LAION-POP's "aesthetic values of at least 0.5"; a weight above 0 needs
    [score] aesthetic_query_vectors."""

    k: int = 1_000
    """Neighbours a centroid; more than the quota, since filters take most."""

    nprobe: int = 0
    """Lists searched a query; 0 lets the planner choose."""

    prefilter: bool = False
    """Leave out, while searching, what [filters] would reject by what the pool says of it, so that all k neighbours
    may pass; a value the pool doesn't know is kept. A server needs /knn-batch for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """How pictures are brought in."""

    mode: str = "one-step"
    """one-step, or two-step: of each picture a small copy first, enough to score and to show it, and the full size
    only of what select takes, asked for once more."""

    concurrency: int = 64
    """Downloads at the same time."""

    processes: int = 0
    """Processes that download, each with its share of the hosts and of concurrency and workers; 0 is one for 2,000
    addresses, for half of the cores at most."""

    per_host: int = 4
    """Downloads at the same time from one host."""

    timeout_s: float = 20.0
    """Seconds for one picture, redirects included."""

    max_bytes: int = 50_000_000
    """A larger file is refused."""

    max_side_px: int = 0
    """Scale longer pictures down to this side when storing; 0 keeps them as they are."""

    disk_budget: str = "100GB"
    """What images/ may take."""

    workers: int = 0
    """Processes that open pictures; 0 is one a core."""

    honour_opt_out: bool = True
    """Leave out what its host reserves: robots.txt, X-Robots-Tag (noai, noimageai, noindex, noimageindex) and
    TDM-Reservation. false still writes down what the headers say."""

    same_bytes: bool = False
    """Refuse a download whose bytes aren't those whose SHA-256 the pool knows: the address shows something else by now,
    or the same encoded anew. Where the pool knows no hash, nothing is refused."""

    contact: str = ""
    """Address or mail that hosts are told in the user agent, so that they can reach you."""

    placeholder_repeats: int = 5
    """Addresses of one host that give the very same bytes, from which these count as a placeholder such as
    "image not available"; 0 is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """The models that score pictures: files in LAION's own forms, or their names. Empty: that score is unknown."""

    aesthetic_head: str = ""
    """LAION aesthetic predictor: a .pth, .safetensors or .npz, or laion-aesthetic-v1-l14, -v1-b32, -v1-b16 or -v2-l14,
    fetched on first use; "demo" is the small world's."""

    aesthetic_query_vectors: str = ""
    """For [retrieve] aesthetic_query: a folder with rating0.npy to rating9.npy, or laion-ratings-l14 or -b32, fetched
    on first use; "demo" is the small world's."""

    unsafe_head: str = ""
    """LAION NSFW detector: its .zip, .pth (H/14) or .npz, or laion-nsfw-l14 or -b32, fetched on first use; "demo" is
    the small world's."""

    watermark_head: str = "zero-shot"
    """LAION's watermark classifier on pixels (.pt, .pth or .safetensors), or a head on embeddings (.npz); zero-shot is
    CLIP's own guess from words, and named so; "demo" is the small world's. What the pool itself says of watermarks
    counts before the classifier and the guess."""

    violence_prompts: str = ""
    """LAION's two prompts as .npy, or laion-violence-l14 or -b32, fetched on first use: a score above 0 is violent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AestheticMin:
    """A lower bound on the aesthetic score. Not LAION-POP's 0.5: that is [retrieve] aesthetic_query."""

    head: str = ""
    """Name of the head the value is meant for, so that scales aren't mixed up; empty takes any."""

    value: float | None = None
    """Lowest score kept, on the head's own scale of 0 to 10; false, or none, is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FiltersConfig:
    """What a picture must have to be selected."""

    min_side_px: int = 768
    """Pixels of the shorter side at least."""

    pwatermark_max: float | None = 0.8
    """Watermark probability at most, 0 to 1; false is off."""

    punsafe_max: float | None = None
    """NSFW probability at most, 0 to 1; false, or none, is off: LAION-POP published the score and left the cut to its
    users."""

    violence_max: float | None = None
    """Violence score at most, of [score] violence_prompts: above 0 is violent, so 0 is the cut; false, or none, is
    off."""

    aesthetic_min: AestheticMin = field(default_factory=AestheticMin)
    """Lowest aesthetic score."""

    unknown: str = "keep"
    """keep or drop: what happens to a picture whose value isn't known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig:
    """How the dataset is put together from what passes the filters."""

    quota_per_centroid: int = 60
    """Pictures a centroid at most; LAION-POP has 60 on average."""

    near_duplicate: float = 0.94
    """Similarity from which two pictures count as one; 1 and above switches it off."""

    same_picture: float = 0.0
    """Similarity that a downloaded picture must have to the pool's own embedding of it, of the same model, to count as
    the one the pool was made from; 0 asks nothing."""

    one_centroid_per_image: bool = True
    """A picture wanted by several centroids goes to one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionConfig:
    """How pictures are described."""

    engine: str = "embedded"
    """embedded (transformers) or http (any OpenAI-compatible server)."""

    model: str = "llava-hf/llava-1.5-7b-hf"
    """A LLaVA-1.5 checkpoint: its name, or a folder; "demo" is the small model that comes with popfactory."""

    revision: str = ""
    """Which revision of the checkpoint; empty is its newest."""

    endpoints: tuple[str, ...] = ()
    """Addresses of OpenAI-compatible servers, for the http engine."""

    prompt: str = "laion-pop"
    """Id of the prompt; `laion-pop` is the one of 2023, verbatim."""

    max_new_tokens: int = 512
    """Length of a caption at most, in tokens."""

    second_try: bool = True
    """Ask once more for a caption that loops (with a penalty on repetition) or was cut off (with twice the length)."""

    image_mode: str = "crop"
    """What becomes of a picture that isn't square: crop keeps its middle, as LLaVA-1.5's checkpoints for transformers
    do; pad puts it on a square, as LLaVA-1.5's own code did; squash distorts it."""

    batch_size: int = 16
    """Pictures a step of the embedded engine; halved by itself when memory runs out."""

    in_flight: int = 32
    """Requests at the same time of the http engine, a server, at most; it begins with fewer and finds what helps."""

    agreement_sample: int = 2_000
    """Captions at most whose agreement with their pictures the [clip] model measures; 0 is none."""

    price_prompt: float = 0.0
    """What a million tokens of pictures and prompts cost, in your currency; 0 is nothing."""

    price_caption: float = 0.0
    """What a million tokens of captions cost."""

    api_key_env: str = ""
    """Name of the environment variable that holds the servers' key, for the http engine; empty sends none."""

    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListsConfig:
    """Pictures that may never appear. A list that can't be read stops the work."""

    takedown: tuple[str, ...] = ()
    """Text files with an id, address or domain a line."""

    hash_block: tuple[str, ...] = ()
    """Text files with a hash in hex a line: SHA-256 or MD5 of the bytes, url:HASH of the address, pdq:HASH of
    the look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseConfig:
    """What is published."""

    name: str = "pop"
    """Name of the dataset, in its folder and card."""

    version: str = "1.0"
    """Version of the dataset, in its folder and card."""

    licence: str = "metadata: Apache-2.0; pictures: their owners'"
    """As the card states it."""

    pixels: bool = False
    """Put the pictures themselves in the release as well, as WebDataset tars."""

    aspect_buckets: bool = False
    """Keep pictures of like shape together in those tars: 3x2-00000.tar, 1x1-00000.tar and so on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """popfactory.toml."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    concepts: ConceptsConfig = field(default_factory=ConceptsConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    centroids: CentroidsConfig = field(default_factory=CentroidsConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    retrieve: RetrieveConfig = field(default_factory=RetrieveConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    lists: ListsConfig = field(default_factory=ListsConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
