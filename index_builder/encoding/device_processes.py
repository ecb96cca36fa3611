"""One model on several devices: a process for each, which share every step among them.

Written for several GPUs and run here on several processes of one CPU; how it scales on GPUs has not been measured.
A picture's embedding is the same as on one device: each process embeds steps of the same size.
"""

import contextlib
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

import numpy as np

from index_builder.encoding.clip import ClipEncoder
from index_builder.encoding.encoding_choice import EncodingChoice, apply
from index_builder.encoding.preprocessing import Pixels, Preprocessing
from spine.errors import ModelError
from spine.settings import ClipConfig
from spine.tables import Vectors
from spine.workers import interrupts_held


class DeviceProcesses:
    """Embeds pictures on several devices; a context manager that ends the processes."""

    def __init__(
        self,
        config: ClipConfig,
        devices: Sequence[str],
        choice: EncodingChoice,
        preprocess: Preprocessing,
        d: int,
    ) -> None:
        """Start the processes; they load the model while others work.

        Args:
            config: The model.
            devices: One for each process.
            choice: How each embeds.
            preprocess: The model's own.
            d: Dimension of its embeddings.
        """
        self.preprocess, self.d = preprocess, d
        self.batch_size = choice.batch_size * len(devices)
        """Pictures that all of them embed in one step."""
        self._share = choice.batch_size
        self._workers: list[tuple[BaseProcess, Connection]] = []
        context = multiprocessing.get_context("spawn")
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, replace(config, device=device), choice), daemon=True, name=device
            )
            with interrupts_held():
                process.start()
            theirs.close()
            self._workers.append((process, ours))

    def __enter__(self) -> "DeviceProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._workers:
            connection.close()
            process.kill()
            process.join()

    def encode_images(self, pixels: Pixels, *, steady: bool = False) -> Vectors:
        """Embed pictures; see ClipEncoder.encode_images.

        Raises:
            ModelError: A process failed; its own message.
            RuntimeError: A process ended.
        """
        shares = [pixels[start : start + self._share] for start in range(0, len(pixels), self._share)]
        found: list[Vectors] = []
        for start in range(0, len(shares), len(self._workers)):
            busy = list(zip(self._workers, shares[start : start + len(self._workers)], strict=False))
            try:
                for (_, connection), share in busy:
                    connection.send((share, steady))
                answers = [connection.recv() for (_, connection), _ in busy]
            except (EOFError, OSError):
                codes = [process.exitcode for process, _ in self._workers]
                raise RuntimeError(f"a process that embeds pictures ended (exit codes {codes})") from None
            for answer in answers:
                if isinstance(answer, str):
                    raise ModelError(answer)
                found.append(answer)
        return np.concatenate(found) if found else np.empty((0, self.d), dtype=np.float32)


def _serve(connection: Connection, config: ClipConfig, choice: EncodingChoice) -> None:
    """A process: pixels in, embeddings out, until the other side closes."""
    with contextlib.suppress(EOFError, OSError):
        try:
            encoder = ClipEncoder.load(config)
        except ModelError as error:
            connection.recv()
            connection.send(str(error))
            return
        apply(choice, encoder)
        while True:
            pixels, steady = connection.recv()
            connection.send(encoder.encode_images(pixels, steady=steady))
