"""Word vectors served over HTTP: the model that `mlflow models serve` runs, with its requests and responses.

    mlflow models serve -m models:/NAME@champion --env-manager local -p 5000
    curl localhost:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": ["king", "qeen"]}'

The request: `inputs` is a list of strings; `params` may hold

    ask              what to return for each input: "similar" (default), "vector" or "analogy"
    topn             number of answers, 1 to 1000 (default 10)
    restrict_vocab   only this many of the most frequent words can be answers; 0 = all (default)

The response has one entry per input, in order, whatever the words are:

    similar   {"word": "king", "known": true, "similar": [{"word": "queen", "score": 0.781}, …]}
    vector    {"word": "king", "known": true, "vector": [0.013, …]}
    analogy   {"question": "man king woman", "known": true, "answers": [{"word": "queen", "score": 0.712}, …]}
              (an input is three words, A B C: "A is to B as C is to …")

A word that is not in the vocabulary has "known": false, an empty list, and a "message" with the nearest spellings. An invalid
request (inputs that are not strings, an unknown `ask`, an analogy that is not three words) gets status 400 and a reason.
"""
