"""The names of gensim's KeyedVectors, and a few others, that `WordVectors` does not have, each with what to use instead: shown in
errors.

Most of them change vectors in place. A `WordVectors` never changes, so it can be shared, mapped from disk and queried by
several threads; methods that would change it return a new one.
"""

from __future__ import annotations

_CHANGE = "WordVectors never changes: with_vectors(words, vectors, counts, replace=True) gives new ones"

INSTEAD = {
    **dict.fromkeys(("add_vector", "add_vectors", "resize_vectors", "set_vecattr", "allocate_vecattrs"), _CHANGE),
    **dict.fromkeys(("unit_normalize_all", "init_sims", "vectors_norm"), "get_normed_vectors() gives the matrix at length 1"),
    **dict.fromkeys(("index2word", "index2entity"), "it is index_to_key, as in gensim 4"),
    **dict.fromkeys(("log_accuracy", "log_evaluate_word_pairs"), "scores are returned with their coverage"),
    **dict.fromkeys(("get_words", "labels"), "it is words"),
    **dict.fromkeys(("get_word_id", "get_subword_id"), "it is get_index"),
    "get_word_vector": "it is get_vector; fastText makes vectors of unknown words from their parts, which words do not have here",
    "get_sentence_vector": "it is get_mean_vector(words)",
    "get_nearest_neighbors": "it is most_similar(word, topn=k), with (word, score) instead of (score, word)",
    "get_analogies": "it is most_similar(positive=[a, c], negative=[b])",
    "get_input_matrix": "it is vectors",
    "get_output_matrix": "it is context",
    "get_dimension": "it is vector_size",
    "accuracy": "w2v_core.vectors.evaluation.evaluate_analogies, or `w2v evaluate VECTORS SET`",
    "fill_norms": "norms are made by the first query",
    "add_lifecycle_event": "summary.json says what was made, with what and when",
    "wmdistance": "an optimal-transport package, POT for one, on the vectors wv[words]",
    "similarity_unseen_docs": "n_similarity(words, words)",
    "vocab": "it is key_to_index, as in gensim 4",
    "word_vec": "it is get_vector, as in gensim 4",
    "sort_by_descending_frequency": "subset(words) gives them in another order",
    "intersect_word2vec_format": "WordVectors.load, then with_vectors or subset",
    "save_word2vec_format": "pipeline.formats.exports.export_vectors and `w2v export` write other programs' formats",
    "evaluate_word_analogies": "w2v_core.vectors.evaluation.evaluate_analogies, or `w2v evaluate VECTORS SET`",
    "keys": "it is words, in the order of their rows",
    "get": "it is get_vector(word), for words of which `word in vectors` is true",
    "copy": "it never changes, so it needs no copy",
    "shape": "it is vectors.shape, (words, numbers)",
    **dict.fromkeys(("to_pandas", "to_frame", "to_dataframe"), "it is pandas.DataFrame(wv.vectors, index=wv.index_to_key)"),
    "to_gensim": "a Model has it: pipeline.load(folder).to_gensim()",
    "evaluate_word_pairs": "w2v_core.vectors.evaluation.evaluate_similarity, or `w2v evaluate VECTORS SET`",
}
