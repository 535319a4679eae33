"""Word2vec on arrays: the definition, the textbook's layers, the fast kernels, and what one does with vectors.

Shapes are written with one letter a dimension, everywhere the same, and appended to names (`hidden_BD`):

    B targets of a batch    C context rows    D vector size    K noise words    N rows of a stream    V vocabulary
    R rows merged           S sentences       M tokens before subsampling       T cells of the noise table

    contract.py      the arguments of training, and what every backend of the kernels offers
    reference.py     what is computed: plain loops in float64; every kernel is tested against it
    kernels/         the same, fast: numpy, numba (CPU default), cupy
    sampler.py       noise distribution and table, counter-based random numbers
    windows.py       subsampling and windows: sentences → the training stream
    textbook/        the chapter, layer by layer: layers models optimizers trainer contexts unigram
    vectors/         WordVectors, with gensim's names: vocabulary (words and rows) terms (what a question is about) cosines (exact
                     answers, quickly) means prediction parts (subsets, additions) gensim_names; loading (any file of vectors)
                     files word_files safetensors parquet; questions evaluation (scores with their coverage)
    text/            bytes of text as words, compiled

NumPy and the standard library only; numba and cupy inside the kernel modules that need them, pyarrow inside the one file that
reads Parquet; nothing of files in the
cloud, clusters or tracking: that is `pipeline`.
"""
