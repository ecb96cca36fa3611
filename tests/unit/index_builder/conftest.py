import faiss
import pytest


@pytest.fixture
def one_thread():
    """FAISS has one."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)
