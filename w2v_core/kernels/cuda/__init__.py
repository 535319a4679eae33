"""The kernels on a GPU: CUDA source (*.cu), launched through CuPy."""
