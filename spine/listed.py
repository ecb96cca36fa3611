"""The fetched pictures that takedown and hash lists name, as the lists stand while a stage works."""

import threading

import pyarrow.compute as pc

from spine.lists import LOOK_EVERY_S, BlockLists, ListsInForce
from spine.run import Run
from spine.table_files import read_parts
from spine.tables import IMAGES


class Listed:
    """Which pictures lists name by now; one that was named once stays out for this call."""

    def __init__(self, run: Run) -> None:
        """Look at the lists.

        Args:
            run: With images/ and lists.

        Raises:
            ConfigError: A list can't be read.
        """
        self._run, self._in_force = run, ListsInForce(run, LOOK_EVERY_S)
        self._lock = threading.Lock()
        self._rules: dict[int, str] = {}
        self._judged: BlockLists | None = None
        self.rules()

    def rules(self) -> dict[int, str]:
        """The rule of each picture that a list names, by id; images/ is read where the lists were written.

        Raises:
            ConfigError: A list can't be read; then no picture goes on.
        """
        with self._lock:
            lists = self._in_force.now()
            if lists is not self._judged:
                if not lists.empty:
                    self._rules = {**self._rules, **self._named(lists)}
                self._judged = lists
            return self._rules

    def _named(self, lists: BlockLists) -> dict[int, str]:
        names = ["id", "url", "sha256", "md5", "status", *(["pdq"] if len(lists.pdq) else [])]
        images = read_parts(self._run.images, IMAGES, names)
        images = images.filter(pc.equal(images["status"], "fetched"))
        pairs = zip(images["id"].to_pylist(), lists.blocks_all(images), strict=True)
        return {number: rule for number, rule in pairs if rule is not None}
