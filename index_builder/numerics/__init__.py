"""Arithmetic on vectors close to the machine: FAISS and BLAS as they are set up, products, stored float16 rows."""
