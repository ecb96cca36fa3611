"""Lets a CUDA-built torchvision load beside a CPU-only torch.

The wheel that a plain package index offers is linked against CUDA. Beside a CPU build of torch its
compiled operators do not load, `import torchvision` then stops on a missing schema, and open_clip
and transformers with it, though both need only the parts written in Python. Declaring the two
schemas is enough. This is the one module of the spine that touches an engine: index_builder and
captioner both need it and may not import each other.
"""

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_alive: list[Any] = []  # a torch Library takes its schemas with it when it is collected


@functools.cache
def declare_missing_operators() -> bool:
    """Declare torchvision's two schemas if its compiled library cannot load.

    Call before the first import of open_clip or transformers. Repeated calls cost nothing.

    Returns:
        True if the schemas were declared, False if torchvision is absent or loads by itself.
    """
    found = importlib.util.find_spec("torchvision")  # finds the package without importing it
    if found is None or found.origin is None:
        return False
    import torch

    libraries = sorted(Path(found.origin).parent.glob("_C*"))
    if libraries and all(_loads(library) for library in libraries):
        return False
    library: Any = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept_alive.append(library)
    return True


def _loads(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True
