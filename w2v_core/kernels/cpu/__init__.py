"""The kernels on a CPU, compiled by Numba."""
