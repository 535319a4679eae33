"""Word2vec on arrays: the definition, the textbook's layers, the fast kernels, and what can be done with vectors.

Every dimension has one letter, the same everywhere; the letters of an array's shape end its name (`hidden_BD`):

    B targets of a batch, or of a block            N rows of a stream
    C context rows                                 O outputs scored for a target: its own word and its noise, 1 + K
    D vector size                                  Q questions
    E examples of a group                          R rows merged or moved at once
    G groups of a block                            S sentences
    J steps a row lags behind                      T cells of the noise table
    K noise words                                  U distinct ids
    L lanes                                        V vocabulary
    M tokens before subsampling                    W words looked up             Y bytes of text

    contract.py      the arguments of training, and what every kernel backend offers
    reference.py     the definition: plain loops in float64; every kernel is tested against it
    kernels/         the same computation, fast: numpy, numba (the default on CPUs), cupy
    sampler.py       noise distribution and table, counter-based random numbers
    windows.py       subsampling and windows: sentences → the training stream
    textbook/        the chapter, layer by layer: layers models optimizers trainer contexts unigram
    vectors/         WordVectors, with gensim's names: vocabulary (words and rows) terms (what a question is about) cosines (fast
                     exact answers) means prediction parts (subsets, additions) gensim_names; loading (any file of vectors)
                     files word_files safetensors parquet; questions evaluation (scores with their coverage)
    text/            from bytes of text to words, compiled
    extras.py        the commands that install optional packages

NumPy and the standard library only; numba and cupy inside the kernel modules that need them, pyarrow inside the one file that
reads Parquet. Cloud storage, clusters and tracking belong to `pipeline`.
"""
