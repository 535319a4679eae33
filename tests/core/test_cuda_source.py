"""The CUDA source compiles for every architecture, agrees with the Python side, and computes what the definition says.

No GPU is needed: NVRTC compiles without one, and the source itself runs on the CPU (see cuda_on_cpu).
"""

from __future__ import annotations

import ctypes
import math
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.cuda_on_cpu import CpuCuda, CpuDevice, compiler
from tests.core.kernel_cases import always, assert_as_defined, assert_writes_rows_as_defined, define, random_case, train
from tests.sampling import sample
from tests.sharing import made_once
from w2v_core import reference, sampler
from w2v_core.contract import Noise, Slice
from w2v_core.kernels import load_kernels, numpy_kernels
from w2v_core.kernels.cuda import slices
from w2v_core.kernels.cuda.slices import (
    DEFAULT_THREAD_BLOCKS,
    FEWEST_THREAD_BLOCKS,
    KERNELS,
    THREADS,
    WARP,
    default_thread_blocks,
    shared_layout,
)

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_90"]

# ── compiling ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Nvrtc:
    """CUDA's run-time compiler through its C interface."""

    def __init__(self) -> None:
        pytest.importorskip("nvidia", reason="the wheel nvidia-cuda-nvrtc is not installed")
        import nvidia  # type: ignore[import-untyped, unused-ignore]

        found = [path for root in nvidia.__path__ for path in Path(root).glob("**/libnvrtc.so.*")]
        if not found:
            pytest.skip("no libnvrtc in the nvidia wheels: install nvidia-cuda-nvrtc")
        for builtins in found[0].parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)  # NVRTC asks for it by name only
        self.library = ctypes.CDLL(str(found[0]))

    def compile(self, source: str, *options: str) -> tuple[bool, str, bytes]:
        """(compiled, log, cubin or PTX)."""
        program = ctypes.c_void_p()
        created = self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        assert created == 0
        encoded = [option.encode() for option in options]
        code = self.library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        log = self._read(program, "ProgramLog").rstrip(b"\0").decode()
        kind = "PTX" if any("compute_" in option for option in options) else "CUBIN"
        binary = self._read(program, kind) if code == 0 else b""
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return code == 0, log, binary

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        assert getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(self.library, f"nvrtcGet{what}")(program, text) == 0
        return text.raw


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    return Nvrtc()


def compile_for(nvrtc: Nvrtc, architecture: str) -> tuple[bool, str, bytes]:
    """What NVRTC makes for an architecture: rows of one strip and 5 noise words, for sm_100 four strips and 20."""
    sizes = ("-DROW_FLOATS=512", "-DNEGATIVE=20") if architecture == "sm_100" else ("-DROW_FLOATS=104", "-DNEGATIVE=5")
    return nvrtc.compile(slices.source(), "-std=c++17", "-no-source-include", f"-arch={architecture}", *sizes)


@pytest.mark.parametrize("build", sample(ARCHITECTURES, 2))
def test_the_source_compiles_without_headers_and_exports_every_kernel_that_is_launched(nvrtc: Nvrtc, build: str) -> None:
    good, log, binary = compile_for(nvrtc, build)
    assert good, log
    assert "warning" not in log, log
    for kernel in KERNELS:
        assert re.search(rb"\.entry " + kernel.encode() + rb"\b" if build.startswith("compute") else kernel.encode(), binary)


def test_a_row_is_added_by_one_vector_instruction_on_hopper(nvrtc: Nvrtc) -> None:
    _, log, ptx = compile_for(nvrtc, "compute_90")
    assert b"red.relaxed.gpu.global.add.v4.f32" in ptx, log
    assert b"ld.relaxed.gpu.global.v4.f32" in ptx


@pytest.mark.parametrize("options", [(), ("-DROW_FLOATS=12", "-DNEGATIVE=5"), ("-DROW_FLOATS=8", "-DNEGATIVE=0")])
def test_sizes_the_source_cannot_serve_do_not_compile(nvrtc: Nvrtc, options: tuple[str, ...]) -> None:
    good, log, _ = nvrtc.compile(slices.source(), "-arch=sm_90", *options)
    assert not good
    assert re.search(r"compile with -DROW_FLOATS|ROW_FLOATS must be a positive multiple of 8|NEGATIVE must be at least 1", log)


@pytest.mark.parametrize(("name", "line"), [("cbow.cu", "const Windows windows = find_windows"), ("merge.cu", "both += l * r;")])
def test_a_broken_source_is_reported_with_its_file_and_line(nvrtc: Nvrtc, name: str, line: str) -> None:
    text = (resources.files("w2v_core.kernels.cuda") / name).read_text()
    broken = next(number for number, found in enumerate(text.splitlines(), start=1) if line in found)
    source = slices.source().replace(text.splitlines()[broken - 1], "        this is not C++;")
    good, log, _ = nvrtc.compile(source, "-arch=sm_90", "-DROW_FLOATS=8", "-DNEGATIVE=5")
    assert not good
    assert f"{name}({broken}): error" in log


@pytest.mark.parametrize("name", slices.SOURCES)
def test_a_file_ends_where_its_last_function_ends(name: str) -> None:
    text = re.sub(r"//.*|'.'|\"[^\"]*\"", "", (resources.files("w2v_core.kernels.cuda") / name).read_text(encoding="utf-8"))
    depth = 0
    for line in text.splitlines():
        depth += line.count("{") - line.count("}")
        assert depth >= 0, f"{name} closes what another file opened: {line}"
    assert depth == 0, f"{name} leaves something open for the next file"


def test_constants_are_those_of_the_python_side() -> None:
    found = dict(re.findall(r"^constexpr (?:int|u64) (\w+) = (\w+?)(?:ull)?;", slices.source(), re.MULTILINE))
    expected = {
        "BLOCK": reference.BLOCK, "GROUP": reference.GROUP, "GROUPS": reference.GROUPS, "SLOTS": reference.SLOTS,
        "GAMMA": sampler.GAMMA, "MIX_1": sampler.MIX_1, "MIX_2": sampler.MIX_2, "MAX_THREADS": THREADS, "WARP": WARP,
    }  # fmt: skip
    assert {name: int(found[name], 0) for name in expected} == expected


def test_the_kernels_named_are_the_kernels_of_the_source() -> None:
    found = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(', slices.source())
    assert sorted(found) == sorted(KERNELS)


# ── computing ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler()
    with made_once(tmp_path_factory, "cuda") as (made, is_new):
        if is_new:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda build: CpuDevice(made).library(*build), [(264, 9), (24, 5), slices.ANY_BUILD]))
    return made


def sequential(directory: Path, **device: Any) -> CpuCuda:
    return CpuCuda(CpuDevice(directory, **device), mode="sequential")


MODELS = [("cbow", "word2vec"), ("cbow", "exact"), ("skipgram", "word2vec")]
SHAPES: dict[str, dict[str, Any]] = {
    "slice inside the stream": {"rows": 330, "start": 37, "stop": 270},
    "less than a group": {"rows": 5, "vocab_size": 3, "window": 2},
    "one target after a block": {"rows": 129},
    "few words, so all repeat": {"rows": 140, "vocab_size": 3},
    "context reaches far outside the slice": {"rows": 400, "window": 60, "start": 150, "stop": 160, "scale": 0.2},
}


@pytest.mark.parametrize(("model", "gradient"), MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sequential_training_equals_the_definition(directory: Path, model: str, gradient: str, shape: str) -> None:
    assert_as_defined(sequential(directory), random_case(1, model=model, gradient=gradient, **SHAPES[shape]))


@pytest.mark.parametrize(("vector_size", "negative", "model"), [(260, 9, "cbow"), (260, 9, "skipgram")])
def test_rows_of_several_strips_and_many_noise_words_equal_the_definition(
    directory: Path, vector_size: int, negative: int, model: str
) -> None:
    case = random_case(3, rows=60, vector_size=vector_size, negative=negative, model=model, window=3, scale=0.2)
    assert_as_defined(sequential(directory), case)


@pytest.mark.parametrize(("shared_kib", "rows_in_shared"), [(227, 2), (30, 1), (18, 0)])
def test_rows_in_shared_and_in_global_memory_give_the_same_bits(directory: Path, shared_kib: int, rows_in_shared: int) -> None:
    case = random_case(2, rows=300)
    kernels = sequential(directory, shared_bytes=shared_kib << 10)
    assert shared_layout(shared_kib << 10, 24, 5, 138).rows_in_shared == rows_in_shared
    found, expected = train(kernels, case), train(sequential(directory), case)
    assert [array.tobytes() for array in found[:2]] == [array.tobytes() for array in expected[:2]]
    assert found[2] == expected[2]


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_sequential_training_gives_the_same_bits_in_whatever_order_warps_run(directory: Path, model: str) -> None:
    case = random_case(5, rows=200, vocab_size=6, model=model, window=3)
    expected = train(sequential(directory), case)
    for schedule in (1, 2):
        found = train(sequential(directory, schedule=schedule), case)
        assert [array.tobytes() for array in found[:2]] == [array.tobytes() for array in expected[:2]]
        assert found[2] == expected[2]


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_concurrent_training_equals_the_definition_where_warps_happen_to_run_in_order(directory: Path, model: str) -> None:
    kernels = CpuCuda(CpuDevice(directory), mode="concurrent", thread_blocks=3)
    assert_as_defined(kernels, random_case(6, rows=120, model=model))
    assert kernels.device.launched[-1][1] == 1


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_concurrent_training_in_any_order_stays_near_the_definition(directory: Path, model: str) -> None:
    # 700 words: side by side, groups rarely meet, so what order changes is of second order.
    case = random_case(7, rows=300, vocab_size=700, model=model, window=3)
    rates_V = np.resize(np.array([0.5, 1.0], np.float32), 700)
    case = case.but(table_T=always(range(512)), rates_V=rates_V)
    kernels = CpuCuda(CpuDevice(directory, schedule=3), mode="concurrent", thread_blocks=2)
    w_in_VD, w_out_VD, result = train(kernels, case)
    expected_in, expected_out, loss, examples = define(case)
    assert result.examples == examples
    assert result.loss_sum == pytest.approx(loss, rel=0.01)
    for found, expected, before in ((w_in_VD, expected_in, case.w_in_VD), (w_out_VD, expected_out, case.w_out_VD)):
        assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected - before)
    assert kernels.device.launched[-1][1] == 2


@pytest.mark.turns(3, 2)
def test_the_check_of_barriers_finds_one_that_is_missing(directory: Path) -> None:
    source = slices.source()
    at = source.index("__syncthreads();", source.index("void sum_windows("))
    source = source[:at] + "                " + source[at + len("__syncthreads();") :]
    case = random_case(5, rows=200, vocab_size=6, window=3)
    expected = train(sequential(directory), case)
    found = [train(sequential(directory, schedule=schedule, source=source), case) for schedule in (1, 2, 3)]
    assert any(w_in_VD.tobytes() != expected[0].tobytes() for w_in_VD, _, _ in found)


@pytest.mark.turns(3, 2)
def test_the_check_of_barriers_stops_where_threads_part(directory: Path) -> None:
    # In a separate process, because it aborts.
    source = slices.source().replace("        move_contexts(slice,", "        if (warp != 3) move_contexts(slice,", 1)
    program = (
        "import pathlib, sys; from tests.core.cuda_on_cpu import *; from tests.core.kernel_cases import *\n"
        "device = CpuDevice(pathlib.Path(sys.argv[1]) / 'parted', source=sys.stdin.read())\n"
        "train(CpuCuda(device, mode='sequential'), random_case(1, rows=40))"
    )
    command = [sys.executable, "-c", program, str(directory)]
    done = subprocess.run(command, check=False, input=source, capture_output=True, text=True)
    assert done.returncode != 0
    assert "simt: threads meet at different barriers" in done.stderr or "simt: no thread can go on" in done.stderr


def test_draws_are_those_of_the_python_side(directory: Path) -> None:
    random_bits_of = CpuDevice(directory).library(24, 5).random_bits_of
    for seed, counter in ((0, 0), (1234567, 4), (2**64 - 1, 2**63), (7, 2**64 - 1)):
        assert random_bits_of(seed, counter) == sampler.random_bits(seed, counter)


def test_sigmoid_is_within_its_stated_error_and_keeps_nan(directory: Path) -> None:
    sigmoid_of = CpuDevice(directory).library(24, 5).sigmoid_of
    for x in np.linspace(-110, 110, 4001, dtype=np.float32):
        assert abs(sigmoid_of(x) - reference.sigmoid(float(x))) < 3e-7
    assert sigmoid_of(-math.inf) == 0.0
    assert sigmoid_of(math.inf) == 1.0
    assert math.isnan(sigmoid_of(math.nan))


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("matrix", ["w_in_VD", "w_out_VD"])
def test_a_parameter_that_is_not_finite_shows_in_the_loss(directory: Path, model: str, poison: float, matrix: str) -> None:
    case = random_case(1, rows=60, vocab_size=5, model=model)
    getattr(case, matrix)[2, :4] = poison
    assert not np.isfinite(train(sequential(directory), case)[2].loss_sum)


def test_the_rows_that_are_written_are_those_of_the_definition(directory: Path) -> None:
    for seed, model in enumerate(["cbow", "skipgram"]):
        case = random_case(seed, rows=300, vocab_size=900, model=model, start=20, stop=130 + 20 * seed, window=3)
        assert_writes_rows_as_defined(sequential(directory), case)


@pytest.mark.parametrize("method", ["adasum", "mean"])
@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_merging_equals_numpy(directory: Path, method: Any, lanes: int) -> None:
    generator = np.random.default_rng(lanes)
    base = generator.normal(size=(70, 24)).astype(np.float32)
    copies = [base + generator.normal(scale=0.1, size=base.shape).astype(np.float32) for _ in range(lanes)]
    for copy in copies[1:]:
        copy[:9] = base[:9]
    expected_base, expected_copies = base.copy(), [copy.copy() for copy in copies]
    numpy_kernels.merge_rows(expected_base, expected_copies, method)
    sequential(directory).merge_rows(base, copies, method)
    np.testing.assert_allclose(base, expected_base, rtol=0, atol=1e-6)
    for copy in copies:
        assert copy.tobytes() == base.tobytes()


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_device_arrays_are_trained_in_place_and_host_arrays_are_copied_back(directory: Path) -> None:
    case, kernels = random_case(4, rows=60), sequential(directory)
    expected = train(kernels, case)
    to_device, to_host = kernels.device.to_device, kernels.device.to_host
    targets = Slice(*map(to_device, (case.targets.tokens_N, case.targets.left_N, case.targets.right_N)), 0, 60)
    noise = Noise(to_device(case.noise.table_T), to_device(case.noise.rates_V))
    w_in, w_out = to_device(case.w_in_VD), to_device(case.w_out_VD)
    result = kernels.train_slice(w_in, w_out, targets, noise, case.update)
    assert result == expected[2]
    np.testing.assert_array_equal(to_host(w_in), expected[0])
    np.testing.assert_array_equal(to_host(w_out), expected[1])


def test_a_stream_is_cut_to_what_a_slice_can_read_and_errors_name_its_own_positions(directory: Path) -> None:
    kernels = sequential(directory)
    case = random_case(1, rows=2000, start=1000, stop=1010)
    assert_as_defined(kernels, case)
    case.targets.tokens_N[:700] = -5  # never read
    train(kernels, case)
    case.targets.left_N[1004] = 3
    case.targets.tokens_N[1003] = 40
    with pytest.raises(ValueError, match=r"position 1003: expected a word id 0 … 39, found 40"):
        train(kernels, case)
    end = random_case(1, rows=2000, start=1990)
    end.targets.right_N[1998] = 9
    with pytest.raises(ValueError, match=r"target at position 1998: its context of .* leaves the stream of 2000 rows"):
        train(kernels, end)


@pytest.mark.parametrize("word", [40, -1])
def test_noise_outside_the_vocabulary_is_an_error(directory: Path, word: int) -> None:
    case = random_case(1, rows=60).but(table_T=always([3, word]))
    with pytest.raises(ValueError, match=rf"noise.table_T: expected word ids 0 … 39, drew {word};.*half trained"):
        train(sequential(directory), case)


def test_short_slices_are_trained_by_fewer_thread_blocks() -> None:
    found = [default_thread_blocks(blocks) for blocks in (1, 3, 100, 128 * 9, 128 * 400)]
    assert found == [1, 3, FEWEST_THREAD_BLOCKS, 9, DEFAULT_THREAD_BLOCKS]


def test_wrong_options_and_arrays_are_errors(directory: Path) -> None:
    case = random_case(1, rows=60)
    with pytest.raises(ValueError, match="expected mode concurrent or sequential, found 'fast'"):
        train(CpuCuda(CpuDevice(directory), mode="fast"), case)
    with pytest.raises(ValueError, match="expected thread_blocks >= 1, found 0"):
        train(CpuCuda(CpuDevice(directory), thread_blocks=0), case)
    with pytest.raises(TypeError, match="tokens_N: expected a C-contiguous int32 array"):
        train(sequential(directory), case.but(tokens_N=case.targets.tokens_N.astype(np.int64)))
    frozen = case.w_in_VD.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="w_in_VD: training works in place and needs a writeable array"):
        slices.train_slice(CpuDevice(directory), frozen, case.w_out_VD, case.targets, case.noise, case.update)
    with pytest.raises(ValueError, match=r"needs [\d,]+ bytes of shared memory a thread block, this device has 49,152"):
        shared_layout(48 << 10, 128, 200, 138)
    device = CpuDevice(directory)
    shifted = device.to_device(np.zeros(40 * 24 + 1, np.float32))[1:].reshape(40, 24)
    with pytest.raises(ValueError, match="w_in_VD: expected a device array that starts on 16 bytes"):
        slices.train_slice(device, shifted, case.w_out_VD, case.targets, case.noise, case.update)


@pytest.mark.parametrize(("row_floats", "negative"), [(24, 5), (264, 9), (8, 1)])
def test_shared_memory_is_laid_out_for_the_group_the_source_declares(directory: Path, row_floats: int, negative: int) -> None:
    size = CpuDevice(directory).library(row_floats, negative).sizeof_group()
    assert shared_layout(1 << 20, row_floats, negative, 138).group_bytes == THREADS // WARP * size


def test_the_wheel_contains_the_cuda_source_and_py_typed(tmp_path: Path) -> None:
    pytest.importorskip("hatchling.build", reason="hatchling, the build backend, is not installed")
    root = Path(__file__).parents[2]
    program = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for name in slices.SOURCES:
            assert wheel.read(f"w2v_core/kernels/cuda/{name}").decode() in slices.source()
        assert {"pipeline/py.typed", "w2v_core/py.typed"} <= set(wheel.namelist())


def test_without_cupy_the_error_names_what_to_install() -> None:
    try:
        import cupy  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"the cupy backend needs the module 'cupy'.*gpu13.*gpu12"):
            load_kernels("cupy")
    else:
        pytest.skip("CuPy is installed")
