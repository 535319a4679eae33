"""The map: from raw text to tracked word vectors, stage by stage.

    corpus files ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                              └─ publish ─▶ exports/, MLflow

Each stage file offers an `identity` (what decides its result) and a `build` (which makes it), and leaves one artefact that
the next reads; stages never meet in memory. The pure function over one part stands beside its short Dask wiring.

    cli.py         the command `w2v`                     run.py        the stages in order, reuse, summary
    config.py      one YAML file = one complete run      errors.py     what a person is told, exit codes
    store.py       artefacts: manifests, checksums       workers.py    Dask, or this process, as `Workers`
    corpus.py      which files, cut into which parts     reading.py    bytes of a part as clean text
    pydocs.py      docstrings as a corpus                decompress.py .gz .zst .bz2 .xz, guarded
    tokenizers.py  text → tokens                         tokenize.py   stage 1
    vocab.py       stage 2                               shards.py     stage 3, the first epoch's stream
    drawing.py     the streams of later epochs           streams.py    any range of an epoch's stream
    rounds.py      the plan of training, pure            lanes.py      one worker's share of a round
    lane_group.py  parameters in memory, merging         train.py      stage 4, round by round
    exchange.py    lanes of several processes, one host  network.py    lanes of several hosts
    crew.py        who trains which lanes, pure          inputs.py     which files a pattern means
    roster.py      workers introduce themselves          probe.py      do they compute alike
    memory.py      what training needs, pure             residency.py  parameters on a GPU for a round
    assembly.py    the files of vectors/                 layered.py    stage 4 with the textbook's layers
    evaluate.py    stage 5                               publish.py    stage 6
    exports.py     other programs' formats               cluster.py    opens the configured Dask cluster
    sources.py     have all workers the same program     failpoints.py where tests make processes die
    tracking.py    what MLflow is told (spool.py, delivery.py, shipping.py, registry.py carry it there)
    report.py      the page and the tables (page.py, charts.py, results.py)      fetch.py   corpora by name

Imports go pipeline → w2v_core, never back.
"""
