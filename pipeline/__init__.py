"""The map: from raw text to tracked word vectors, stage by stage.

    corpus files ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                              └─ publish ─▶ exports/, MLflow

Each stage file offers an `identity` (all that decides its result), a `build` (which makes it) and a `describe` (which sums it
up for people), and leaves one artefact that the next stage reads; stages never meet in memory. The pure function over one part
stands beside its short Dask wiring.

    cli.py commands/               the command `w2v`: signals and errors; the commands, one family per file
    config.py sections.py          one YAML file = one complete run; its keys with their types, defaults and meanings
    errors.py                      the errors that people are shown
    run.py session.py summary.py   a run: its stages in order; what they share; its summary for other programs
    workdir.py progress.py         reading a workdir; progress on the terminal
    store.py failpoints.py         artefacts: manifests, checksums; points at which tests make processes die

    commands/  listed (in order) arguments (CONFIG and its overrides) running planning refreshing corpora vectors workdir
               tracking comparing sweeping removing clusters
    stages/    ladder (the one list of stages) work (what each is given and reports) preloading (in the background)
               tokenize vocab shards train evaluate sets (named sets of questions) publish
    storage/   addresses (in buckets) filesystems (pyarrow's, configured) failures (which requests are retried)
               objects (read, put) copies (of workdirs in buckets) lease (one run at a time)
               local_files (of a workdir, wherever that is)
    text/      corpus (which files) inputs object_inputs (from names to files) sources (opened) pieces (files and parts as data)
               cutting and cut_places (into parts) recognise signatures (the kind of a file, by its name and bytes)
               reading lines (bytes as chunks of lines)
               archives decompress encodings unlike_ascii alphabets east_asian foreign_text (recognised)
               formats/: records blocks json_values json_stream tables columns
               pages thrift messages (memory that a Parquet or Arrow file will take)
               losses (what becomes of every byte) whole (the corpus's totals and notes) pydocs and docstrings fetch
               tokenizers (text as words) characters (classes of characters) folding (normalised text)
               segmenters (scripts without spaces)
    stream/    sampling (draws a part's stream of an epoch) epoch_stream (any range of an epoch's stream)
               rehearsal (known text that an epoch repeats, pure)
               part_files (file names in tokens/ and shards/) mapped_files sizes (how much is held at a time, pure)
    training/  plan (pure) policy (its constants, pure) placement (who trains which copies, pure)
               admission and arithmetic (only workers that compute alike)
               capacity (memory and disk needed, pure) tasks (what a worker is told)
               lanes (one worker's share of a round) stints (training between merges) busy_cores
               lane_group (copies of the parameters, merging) forms and changes (whole rows, or changes in eight bits)
               meanwhile (threads that merge beside training)
               history and stretches (the loss curve) live (progress within a round)
               checkpoints start and beginning (from other vectors) residency (on a GPU)
               assembly (the files of vectors/) layered (with the textbook's layers)
    exchange/  attempts host (its name and cores) shared_memory and huge_pages (copies on one host)
               links and network (across hosts)
    cluster/   choosing (threads or processes, pure) workers (the stages' interface, and this process) dask_workers
               before_start (refuses hopeless runs)
               endings (results and errors of tasks) guest (admission of workers) unfit (workers refused)
               turn (one training at a time)
               state (kept by a worker between tasks)
               opening (the configured cluster) local (its processes on this machine)
               vendors (SSH, SLURM, Kubernetes) options (the keys that these take)
               jobs (SLURM's, replaced when they end) ssh (prepares hosts) certificates
               lazy (opened by the first task) pages (Dask's own, behind a password)
               room (memory and disk) messages (from tasks to the driver) presence (who responds)
               sources (the same program everywhere)
    history/   arrival (access to a workdir) snapshot (a complete result, kept) shapes (of what is read there)
               latest (the current one and the decisions so far) answers (which result answers)
               gc (removes unneeded snapshots and files)
    refresh/   refresh (one decision) delta (changed files, pure) challenge (both vectors trained and measured) gates (pure)
               probe (which word belongs in a window?) stability (neighbourhoods, frame) align (to the former frame) rollback
               hook (a command after the decision)
    planning/  estimate (what a run would take) sample growth (of the vocabulary) speeds and merging (of this machine)
               forecast and merges (the model, pure) shown (as tables)
    compare/   sides (what is compared) compare (what differs) shown (terminal and page)
    sweep/     sweep (every combination of settings, one table)
    library/   training (train) model (load) settings sentences notebook: the pipeline from Python
    options/   section (their common base) text (of corpus and tokenize) storage cluster paths (relative to the file)
               problems (wrong values in words) other_names (settings by the names of gensim and others)
    safety/    start scratch (closed to other users) files second_names hashing_file locks seals json_shapes manifests
               yaml_values values (checked) outputs (at paths that people name) login (passwords for pages)
               deadline (a limit on waiting)
    tracking/  tracker spool shipper delivery registry (events, and their way to MLflow) ui start_page door metrics
               run_events (the events of a run) card (the description of a run)
               textfile (for Prometheus)
               addresses (of trackers) aliases moves registry_database empty_database arrived (spools to remove)
               registry_server (moves `champion` at once)
    serving/   served_model (run by `mlflow models serve`)
    report/    report sections refreshed recipes page (for people) charts figures (PNGs) results
               layout (the map of words)
    formats/   exports word2vec placing (exports moved to folders and buckets) published (vectors read from buckets)
               trained (the vectors of an artefact)

Imports go pipeline → w2v_core, never back.
"""

from typing import TYPE_CHECKING

from pipeline.safety.start import ignore_numba_file

if TYPE_CHECKING:
    from pipeline.library.model import Model as Model
    from pipeline.library.model import load as load
    from pipeline.library.training import train as train

# Here, because every process that runs code of ours imports this module first, however it was started.
ignore_numba_file()


_HOMES = {"train": "pipeline.library.training", "load": "pipeline.library.model", "Model": "pipeline.library.model"}


def __dir__() -> list[str]:
    """For completion: also what is not imported yet."""
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> object:
    """`train`, `load` and `Model`, the pipeline from Python, imported on first use."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
