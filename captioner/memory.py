"""Work that runs out of memory, done in smaller pieces."""

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_halves(
    items: list[Item], work: Callable[[list[Item]], list[Done]], failed: Callable[[Item], Done]
) -> list[Done]:
    """Do `work` on all items at once; where memory runs out, on each half, down to single items.

    Args:
        items: In order.
        work: Gives one result an item.
        failed: Gives the result of an item that is too much by itself.

    Returns:
        One result an item, in order.
    """
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Not inside the except block: the error's traceback would keep the batch's tensors.
    give_back_memory()
    if len(items) == 1:
        return [failed(items[0])]
    middle = len(items) // 2
    return in_halves(items[:middle], work, failed) + in_halves(items[middle:], work, failed)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is torch, on whatever device, or Python running out of memory."""
    import torch

    # On a CPU torch raises a plain RuntimeError that only its text tells from others.
    plain = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return plain or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def give_back_memory() -> None:
    """Let the device and Python have what nobody holds any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
