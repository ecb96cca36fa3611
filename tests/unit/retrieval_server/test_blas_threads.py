import subprocess
import sys

CODE = """
import os, time
import numpy as np
from retrieval_server.blas_threads import use_one_blas_thread
assert use_one_blas_thread(), "NumPy's wheel has its own OpenBLAS"
def used():
    tasks = os.listdir("/proc/self/task")
    return {task: open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()[11] for task in tasks}
start = used()
a = np.ones((1500, 1500), np.float32)
for _ in range(10):
    a @ np.ones((1500, 1501), np.float32)
end = used()
busy = [task for task in end if int(end[task]) > int(start.get(task, 0)) + 2]
assert busy == [str(os.getpid())], busy
"""


def test_matrix_products_stay_in_the_thread_that_asks():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
