"""The one place where FAISS is imported: late, since it costs time and memory, and with the right kernels."""

from functools import cache
from typing import Any

from index_builder.numerics.blas import choose_kernels
from spine.errors import ConfigError


@cache
def load_faiss() -> Any:
    """The `faiss` module, its matrix kernels chosen for this CPU.

    Raises:
        ConfigError: FAISS isn't installed.
    """
    choose_kernels()
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"FAISS can't be imported ({error}); install popfactory[cpu] or popfactory[gpu]"
        ) from None
    return faiss
