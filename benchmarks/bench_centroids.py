"""Spherical k-means beside faiss.Kmeans: same vectors, same number of iterations, same threads, in turn.

CPU seconds are of all threads, the cores that this process may use.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np

from benchmarks.drawn_vectors import Floats, draw_vectors
from benchmarks.report import report
from index_builder.clustering.kmeans import fit_centroids
from index_builder.numerics.blas import VARIABLE, core_type_for, cpu_flags
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.integer_products import has_fast_integers

_FLAT = """
import time
import numpy as np
import faiss
random = np.random.default_rng(0)
vectors, queries = (random.standard_normal((n, 768)).astype(np.float32) for n in (20_000, 500))
seconds = []
for _ in range(3):
    start = time.process_time()
    faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    seconds.append(time.process_time() - start)
print(2 * 500 * 20_000 * 768 / min(seconds) / 1e9)
"""


def main() -> None:
    """Measure k-means, then what the choice of kernels gives FAISS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, k, d, iterations = 128_000 if quick else 1_000_000, 10_000, 768, 5
    vectors, unseen = draw_vectors(n, d), draw_vectors(16_000, d, seed=1)
    ours = timed(fit_centroids_of, vectors, k, iterations)
    theirs = timed(faiss_kmeans, vectors, k, iterations)
    similarity, empty = served(vectors, ours[1])
    similarity_faiss, empty_faiss = served(vectors, theirs[1])
    conditions = {
        "n": n,
        "k": k,
        "d": d,
        "iterations": iterations,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "load_average": round(os.getloadavg()[0], 1),
        "objective": round(similarity, 5),
        "objective_faiss": round(similarity_faiss, 5),
        "objective_unseen": round(served(unseen, ours[1])[0], 5),
        "objective_unseen_faiss": round(served(unseen, theirs[1])[0], 5),
        "empty": empty,
        "empty_faiss": empty_faiss,
        "eight_bit_products": has_fast_integers(),
        "kernels": os.environ.get(VARIABLE),
    }
    cpu = {"cpu_s": round(ours[0], 2), "cpu_s_faiss": round(theirs[0], 2)}
    report(
        "kmeans_speedup", theirs[0] / ours[0], "x faiss.Kmeans, CPU seconds", at_least=5, **cpu, **conditions
    )
    share = similarity / similarity_faiss
    report("kmeans_objective", share, "x faiss.Kmeans, mean similarity", at_least=0.997, **conditions)
    report("kmeans_empty", empty, "centroids without an embedding", at_most=0, **conditions)
    kernels()


def timed(method: Callable[[Floats, int, int], Floats], *given: object) -> tuple[float, Floats]:
    """CPU seconds, and what the method gave."""
    start = time.process_time()
    centroids = method(*given)  # type: ignore[arg-type]
    return time.process_time() - start, centroids


def faiss_kmeans(vectors: Floats, k: int, iterations: int) -> Floats:
    """FAISS's own, on all the vectors."""
    kmeans = load_faiss().Kmeans(
        vectors.shape[1], k, niter=iterations, spherical=True, seed=1, max_points_per_centroid=len(vectors)
    )
    kmeans.train(vectors)
    centroids: Floats = kmeans.centroids
    return centroids


def fit_centroids_of(vectors: Floats, k: int, iterations: int) -> Floats:
    """Ours."""
    return fit_centroids(vectors, k, iterations=iterations, seed=1)


def served(vectors: Floats, centroids: Floats) -> tuple[float, int]:
    """Mean similarity of the vectors to their nearest centroids, and the centroids that are nearest to none."""
    faiss = load_faiss()
    similarities, labels = faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return float(similarities.mean(dtype=np.float64)), len(centroids) - len(np.unique(labels))


def kernels() -> None:
    """Exact search with FAISS's own choice of kernels and with ours, each in a process of its own."""
    rates = {}
    chosen = core_type_for(cpu_flags())
    for name in ("", chosen or ""):
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if name:
            environment[VARIABLE] = name
        output = subprocess.run(
            [sys.executable, "-c", _FLAT], env=environment, capture_output=True, text=True, check=True
        )
        rates[name] = float(output.stdout)
    value = rates[chosen or ""] / rates[""]
    report(
        "blas_kernels_speedup",
        value,
        "x FAISS's own choice, exact search",
        n=20_000,
        d=768,
        queries=500,
        threads=1,
        chosen=chosen,
        gflop_per_cpu_s=round(rates[chosen or ""]),
        gflop_per_cpu_s_own=round(rates[""]),
    )


if __name__ == "__main__":
    main()
