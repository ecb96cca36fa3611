"""Blocks of queries answered by a pool, those that aren't answered yet."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from index_builder.bulk_query import Answers
from index_builder.retrieval.pools import Pool, Question
from spine.progress import Progress
from spine.tables import Vectors

PASS_FILE = ".pass.npz"
"""Name of the hidden file of what a long pass has found so far."""


def answer_blocks(
    pool: Pool,
    queries: Vectors,
    question: Question,
    block: int,
    done: Collection[int],
    progress: Progress,
    keep: Path,
) -> Iterator[tuple[int, Answers]]:
    """Ask for the blocks that aren't done, together or one after the other, whichever costs less.

    Args:
        pool: What is asked.
        queries: Shape (q, d).
        question: What is asked of it.
        block: Queries in a block.
        done: Numbers of blocks that are done.
        progress: Told of queries answered, under "retrieve", and of lists gone through.
        keep: File for what a long pass has found so far; the caller removes it when all blocks are done.

    Yields:
        Number of each block not done, ascending, and its answers; their query counts from the block's first.
    """
    q = len(queries)
    starts = range(0, q, block)
    waiting = [number for number in range(len(starts)) if number not in done]
    left = sum(min(block, q - starts[number]) for number in waiting)
    begun = False
    for number, answers in _answers(pool, queries, question, block, waiting, done, progress, keep):
        if not begun:  # not before: a pass over the lists shows how far it is
            progress.begin("retrieve", q, "centroids", done=q - left)
            begun = True
        yield number, answers
        progress.advance(answers.searched.num_rows)
    if not begun:
        progress.begin("retrieve", q, "centroids", done=q - left)


def _answers(
    pool: Pool,
    queries: Vectors,
    question: Question,
    block: int,
    waiting: list[int],
    done: Collection[int],
    progress: Progress,
    keep: Path,
) -> Iterator[tuple[int, Answers]]:
    if waiting and pool.answers_together(len(queries), question):
        found = pool.search(queries, question, block, progress, done, keep)
        for number, answers in zip(waiting, found, strict=True):
            yield number, _from_first(answers, number * block)
        return
    for number in waiting:
        some = queries[number * block : (number + 1) * block]
        yield from ((number, answers) for answers in pool.search(some, question, block))


def _from_first(answers: Answers, start: int) -> Answers:
    return Answers(*(_shifted(table, start) for table in (answers.neighbours, answers.searched)))


def _shifted(table: pa.Table, start: int) -> pa.Table:
    numbers = pc.subtract(table.column("query"), pa.scalar(start, pa.int32()))
    return table.set_column(table.column_names.index("query"), "query", numbers)
