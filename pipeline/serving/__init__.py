"""Finished vectors answering over HTTP: the model that `mlflow models serve` runs, and its request and response.

    mlflow models serve -m models:/NAME@champion --env-manager local -p 5000
    curl localhost:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": ["king", "qeen"]}'

The request: `inputs` is a list of strings; `params` may hold

    ask              what about each input: "similar" (default), "vector" or "analogy"
    topn             how many answers, 1 to 1000 (10)
    restrict_vocab   only the so many most frequent words can be answers; 0 = all (0)

The response has one entry for each input, in order, whatever the words are:

    similar   {"word": "king", "known": true, "similar": [{"word": "queen", "score": 0.781}, …]}
    vector    {"word": "king", "known": true, "vector": [0.013, …]}
    analogy   {"question": "man king woman", "known": true, "answers": [{"word": "queen", "score": 0.712}, …]}
              (an input is three words, A B C: "A is to B as C is to …")

A word that is not in the vocabulary has "known": false, an empty list, and "message" with the nearest spellings. What cannot be
a request (inputs that are no strings, another `ask`, an analogy that is not three words) gets status 400 and says why.
"""
