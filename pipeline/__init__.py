"""The map: from raw text to tracked word vectors, stage by stage.

    corpus files ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                              └─ publish ─▶ exports/, MLflow

Each stage file offers an `identity` (what decides its result), a `build` (which makes it) and a `describe` (what people are
told), and leaves one artefact that the next reads; stages never meet in memory. The pure function over one part stands beside
its short Dask wiring.

    cli.py commands/               the command `w2v`: its list of commands; the commands, a family a file
    config.py sections.py          one YAML file = one complete run; its keys, with types, defaults and meanings
    errors.py                      what a person is told
    run.py session.py summary.py   a run: through the stages in order; what they share; what is left for other programs
    workdir.py progress.py         looking at a workdir; the terminal
    store.py failpoints.py         artefacts: manifests, checksums; where tests make processes die

    commands/  arguments (CONFIG and its overrides) running planning refreshing corpora vectors workdir
               tracking comparing sweeping clusters
    stages/    ladder (the one list of stages) work (what each is handed, and tells)
               tokenize vocab shards train evaluate sets (of questions, by name) publish
    storage/   addresses (in buckets) filesystems (pyarrow's, opened) failures (what is tried again) objects (read, put)
               copies (of a workdir there) lease (who works there)
    text/      corpus (which files) inputs object_inputs (what names mean) sources (opened) pieces (files and parts as data)
               cutting and cut_places (into parts) recognise signatures (what a file is, by its bytes)
               reading lines (bytes as chunks of lines)
               archives decompress encodings formats/: records blocks json_values json_stream tables columns
               pages messages (how much memory a Parquet or Arrow file asks for)
               losses (what became of every byte) whole (the corpus's totals and notes) pydocs fetch
               tokenizers (text as words) characters folding (what is a letter, and the same) segmenters (scripts without spaces)
    stream/    sampling (a part's stream of an epoch, drawn) epoch_stream (any range of an epoch's stream)
               part_files (what the files of tokens/ and shards/ are called) mapped_files sizes (how much is held at a time, pure)
    training/  plan (pure) policy (its constants, pure) placement (who trains which copies, pure)
               admission and arithmetic (do workers compute alike)
               capacity (does it fit, pure) lanes (one worker's share of a round) busy_cores
               lane_group (copies of the parameters, merging)
               history and stretches (the loss curve) live (what is known while a round runs)
               checkpoints start (from other vectors) residency (on a GPU)
               assembly (the files of vectors/) layered (with the textbook's layers)
    exchange/  attempts shared_memory and huge_pages (copies on one host) links and network (on several)
    cluster/   choosing (threads or processes, pure) workers (what stages know of them, and this process) dask_workers
               before_start (what cannot run is refused)
               endings (of its tasks) guest (a run among others) turn (who trains) state (what a worker keeps)
               opening (the configured cluster) vendors (SSH, SLURM, Kubernetes) certificates lazy (opened when first needed)
               pages (Dask's own, behind a password)
               room (memory and disk) messages (from tasks to the driver) presence (who answers)
               sources (the same program everywhere)
    history/   arrival (where a workdir is worked on) snapshot (a complete result, kept)
               latest (which one answers, what was decided) gc (what nobody needs)
    refresh/   refresh (one decision) delta (files, pure) challenge (the new vectors beside the old) gates (pure)
               probe (which word stands in a window?) stability (neighbourhoods, frame) align (into the old frame) rollback
               hook
    planning/  estimate (what a run would take) sample growth (of the vocabulary) speeds (of this machine) forecast (the model,
               pure) shown (as a table)
    compare/   sides (what is compared) compare (what differs) shown (terminal and page)
    sweep/     sweep (every combination of settings, one table)
    library/   training (train) model (load) settings sentences notebook: the pipeline from Python
    options/   section (what each is) text (of corpus and tokenize) storage paths (relative to the file)
               other_names (what gensim and others call a setting)
    safety/    start scratch (what keeps other users' code out) files second_names locks seals yaml_values values (what is read)
               login (who sees pages)
    tracking/  tracker spool shipper delivery registry (what MLflow is told, and how it gets there) ui start_page door metrics
               run_events (what a run tells, and when) card (its description)
               textfile (for Prometheus)
               addresses (where they go) aliases moves registry_database empty_database
               registry_server (who is champion, moved at once)
    serving/   served_model (what mlflow models serve runs)
    report/    report sections refreshed recipes page (what people read) charts figures (PNGs) results
               layout (the map of words)
    formats/   exports word2vec placing (exports beside a person's own files, and in buckets) published (read from there)

Imports go pipeline → w2v_core, never back.
"""

from typing import TYPE_CHECKING

from pipeline.safety.start import ignore_numba_file

if TYPE_CHECKING:
    from pipeline.library.model import Model as Model
    from pipeline.library.model import load as load
    from pipeline.library.training import train as train

# Here, because every process that runs code of ours imports this first, wherever it was started and by whom.
ignore_numba_file()


def __getattr__(name: str) -> object:
    """`train` and `load`, the pipeline from Python, imported when they are first asked for."""
    homes = {"train": "pipeline.library.training", "load": "pipeline.library.model", "Model": "pipeline.library.model"}
    if name in homes:
        from importlib import import_module

        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
