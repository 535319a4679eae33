"""Word2vec on arrays: the definition, the textbook's layers, the fast kernels, and what one does with vectors.

Shapes are written with one letter a dimension, everywhere the same, and appended to names (`hidden_BD`):

    B targets of a batch, or of a block            N rows of a stream
    C context rows                                 O outputs scored for a target: its own word and its noise, 1 + K
    D vector size                                  Q questions
    E examples of a group                          R rows merged, or moved at once
    G groups of a block                            S sentences
    J steps that a row is behind                   T cells of the noise table
    K noise words                                  U distinct ids
    L lanes                                        V vocabulary
    M tokens before subsampling                    W words that are looked up    Y bytes of text

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
reads Parquet; nothing of files in the cloud, clusters or tracking: that is `pipeline`.
"""
