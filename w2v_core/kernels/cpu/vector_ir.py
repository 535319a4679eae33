"""Vectors of eight float32 inside Numba functions: a small vocabulary for writing LLVM code.

Numba's own vectoriser gives up on loops over several rows that may overlap, and it cannot keep a tile of sums in
registers. The row operations of `numba_kernels` are therefore written as LLVM code, with the small `Emitter` below.
Eight lanes fill one AVX register; LLVM splits them in two for SSE and NEON. Sums over a row always have eight, so their
order is the same on every processor; what is done to each number by itself is done to sixteen at a time where the processor
computes that many (`WIDEST`). Multiply-adds are fused where the processor supports it (`llvm.fmuladd`).

A row is passed as the address of its first byte, an int64: an address takes one register, an array would take seven.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
VECTOR_BYTES = 32
LINE_BYTES = 64

I8, I16, I32, I64, F32, F64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
V8F, V8I, V8D = (ir.VectorType(lane, LANES) for lane in (F32, I32, F64))
_SUFFIX = {"v8f32": V8F, "v8f64": V8D, "v16f32": ir.VectorType(F32, 2 * LANES)}
Value = Any
"""An LLVM value (llvmlite has no types to import)."""


def _widest() -> int:
    """Lanes of the widest vectors that the processor computes at once, 8 or 16, of the one that Numba compiles for."""
    config: Any = numba.config
    name = config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    features = config.CPU_FEATURES
    wide = "+avx512f" in features if features is not None else llvmlite.binding.get_host_cpu_features().get("avx512f", False)
    # Zen 4 takes two turns for sixteen lanes, and gains nothing (infra/benchmarks/records/kernel-steps-2026-11-28.md).
    return 2 * LANES if wide and name != "znver4" else LANES


WIDEST = _widest()


class Column(NamedTuple):
    """A place of a row: one vector of an emitter's lanes, or the first half of one where the row ends."""

    offset: Value
    """In bytes."""
    is_half: bool


class Emitter:
    """Writes LLVM instructions at the builder's position. Vectors are `lanes` × float32 unless said otherwise."""

    def __init__(self, builder: Any, lanes: int = LANES) -> None:
        self.builder = builder
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)

    def integer(self, value: int) -> Value:
        return ir.Constant(I64, value)

    def splat(self, value: float) -> Value:
        """A vector whose lanes all hold one constant."""
        return ir.Constant(self.vector, [ir.Constant(F32, value)] * self.lanes)

    def splat_int(self, value: int) -> Value:
        return ir.Constant(V8I, [ir.Constant(I32, value)] * LANES)

    def pointer(self, address: Value, offset: Value | int = 0) -> Value:
        base = self.builder.inttoptr(address, ir.PointerType())
        if isinstance(offset, int):
            offset = self.integer(offset)
        return self.builder.gep(base, [offset], source_etype=I8)

    def load(self, address: Value, offset: Value | int = 0, kind: Any = None) -> Value:
        return self.builder.load(self.pointer(address, offset), align=4, typ=kind or self.vector)

    def load_address(self, addresses: Value, index: Value | int) -> Value:
        """addresses[index] of an array of int64."""
        if isinstance(index, int):
            return self.load(addresses, 8 * index, I64)
        return self.load(addresses, self.builder.shl(index, self.integer(3)), I64)

    def store(self, value: Value, address: Value, offset: Value | int = 0) -> None:
        self.builder.store(value, self.pointer(address, offset), align=4)

    def columns(self, offset: Value, eights: int) -> list[Column]:
        """The columns of `eights` times eight floats from a byte offset on, which is a multiple of 32."""
        each = self.lanes // LANES
        return [
            Column(self.builder.add(offset, self.integer(first * VECTOR_BYTES)) if first else offset, first + each > eights)
            for first in range(0, eights, each)
        ]

    def load_column(self, row: Value, at: Column) -> Value:
        """A row's numbers there; behind half a vector zeros."""
        if not at.is_half:
            return self.load(row, at.offset)
        return self.beside(self.load(row, at.offset, V8F), ir.Constant(V8F, None))

    def store_column(self, value: Value, row: Value, at: Column) -> None:
        self.store(self.lower_half(value) if at.is_half else value, row, at.offset)

    def broadcast(self, address: Value, offset: Value | int = 0, lane: Any = F32) -> Value:
        """A vector whose lanes all hold the 4-byte value at the address."""
        return self.repeat(self.builder.load(self.pointer(address, offset), align=4, typ=lane))

    def repeat(self, scalar: Value) -> Value:
        """A vector whose lanes all hold a scalar."""
        vector, first = (ir.VectorType(kind, self.lanes) for kind in (scalar.type, I32))
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(first, None))

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lane i = lane lanes[i] of a followed by b."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), [ir.Constant(I32, lane) for lane in lanes])
        return self.builder.shuffle_vector(a, b, mask)

    def beside(self, a: Value, b: Value) -> Value:
        """The eight lanes of a, then those of b."""
        return self.shuffle(a, b, range(2 * LANES))

    def lower_half(self, wide: Value) -> Value:
        """The first eight of sixteen lanes."""
        return self.shuffle(wide, wide, range(LANES))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a·b + c."""
        return self.call("llvm.fmuladd", a, b, c)

    def call(self, name: str, *arguments: Value) -> Value:
        """Calls an LLVM intrinsic that is overloaded by one vector type, the type of its arguments and of its result."""
        kind = arguments[0].type
        suffix = next(text for text, vector in _SUFFIX.items() if vector == kind)
        return self.builder.call(self.declare(f"{name}.{suffix}", kind, [kind] * len(arguments)), arguments)

    def declare(self, name: str, result: Any, arguments: Sequence[Any]) -> Value:
        found = self.builder.module.globals.get(name)
        return found or ir.Function(self.builder.module, ir.FunctionType(result, arguments), name)

    def prefetch(self, address: Value, offset: Value, level: int) -> None:
        """Prefetches a cache line; level 3 = into all caches, 2 = into the second level and up."""
        self._ask_for(address, offset, 0, level)

    def prefetch_to_write(self, address: Value, offset: Value) -> None:
        """Prefetches a cache line for writing, into all caches: x86 has no such prefetch into the second level only. A line that
        another core holds must be taken from it before it can be written, which costs more than fetching it."""
        self._ask_for(address, offset, 1, 3)

    def _ask_for(self, address: Value, offset: Value, writes: int, level: int) -> None:
        function = self.declare("llvm.prefetch.p0", ir.VoidType(), [ir.PointerType(), I32, I32, I32])
        constants = [ir.Constant(I32, number) for number in (writes, level, 1)]
        self.builder.call(function, [self.pointer(address, offset), *constants])

    def loop(self, begin: Value, end: Value, step: int, carried: Sequence[Value] = ()) -> AbstractContextManager[Loop]:
        """A loop over begin, begin + step … < end; its body sets `loop.next`, the values carried to the next iteration."""
        builder = self.builder
        return self._loop(
            begin, lambda at: builder.icmp_signed("<", at, end), lambda at: builder.add(at, self.integer(step)), carried
        )

    def chain(self, first: Value, following: Value, carried: Sequence[Value]) -> AbstractContextManager[Loop]:
        """A loop over first, following[first] … until 0, as `loop` otherwise; `following` is an array of int64."""
        return self._loop(
            first, lambda at: self.builder.icmp_signed("!=", at, self.integer(0)),
            lambda at: self.load_address(following, at), carried,
        )  # fmt: skip

    @contextmanager
    def _loop(
        self, first: Value, goes_on: Callable[[Value], Value], after: Callable[[Value], Value], carried: Sequence[Value]
    ) -> Iterator[Loop]:
        builder, function = self.builder, self.builder.function
        entry = builder.block
        head, body, leave = (function.append_basic_block(part) for part in ("head", "body", "leave"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(first, entry)
        state = [builder.phi(value.type) for value in carried]
        for phi, value in zip(state, carried, strict=True):
            phi.add_incoming(value, entry)
        builder.cbranch(goes_on(index), body, leave)
        builder.position_at_end(body)
        loop = Loop(index, state)
        yield loop
        index.add_incoming(after(index), builder.block)
        for phi, value in zip(state, loop.next, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(leave)

    def choose(self, number: Value, cases: Mapping[int, Callable[[], None]]) -> None:
        """Runs cases[number], or nothing if there is no such case."""
        builder = self.builder
        leave = builder.function.append_basic_block("leave")
        switch = builder.switch(number, leave)
        for value, body in cases.items():
            block = builder.function.append_basic_block(f"case.{value}")
            switch.add_case(self.integer(value), block)
            builder.position_at_end(block)
            body()
            builder.branch(leave)
        builder.position_at_end(leave)


class Loop:
    """In the body: the `index`, and the `state` at the start of the iteration. After the loop `state` holds the final values."""

    def __init__(self, index: Value, state: list[Value]) -> None:
        self.index = index
        self.state = state
        self.next: list[Value] = list(state)


def operation(arguments: int, result: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that makes a Numba function of `arguments` int64 arguments from `body(emitter, *values)`, which emits its code.

    If the result is not void, the body returns it as an LLVM value.
    """

    def decorate(body: Callable[..., Any]) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            value = body(Emitter(builder), *values)
            return context.get_dummy_value() if result is types.void else value

        def typing(_context: Any, *_arguments: Any) -> Any:
            return result(*[types.int64] * arguments), codegen

        # Numba takes the number of parameters from the signature, and *args does not tell it.
        names = ["context", *(f"argument{index}" for index in range(arguments))]
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
        typing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        typing.__name__, typing.__doc__ = body.__name__, body.__doc__
        return intrinsic(typing)

    return decorate


# ── numbers at addresses: arrays would cost a test for negative indices, and reference counting wherever they are passed ─


@operation(2, types.int64)
def int_at(e: Emitter, ints: Value, index: Value) -> Value:
    """Element `index` of the int32 numbers that begin at an address."""
    return e.builder.sext(e.load(ints, e.builder.shl(index, e.integer(2)), I32), I64)


@operation(3)
def set_int(e: Emitter, ints: Value, index: Value, value: Value) -> None:
    """Writes an int32, or the bits of a float32 that `int_at` has read."""
    e.builder.store(e.builder.trunc(value, I32), e.pointer(ints, e.builder.shl(index, e.integer(2))), align=4)


@operation(2, types.int64)
def long_at(e: Emitter, longs: Value, index: Value) -> Value:
    """Element `index` of the int64 numbers, mostly addresses, that begin at an address."""
    return e.load_address(longs, index)


@operation(3)
def set_long(e: Emitter, longs: Value, index: Value, value: Value) -> None:
    e.builder.store(value, e.pointer(longs, e.builder.shl(index, e.integer(3))), align=8)


@operation(2, types.int64)
def short_at(e: Emitter, shorts: Value, index: Value) -> Value:
    """Element `index` of the uint16 numbers that begin at an address."""
    return e.builder.zext(e.builder.load(e.pointer(shorts, e.builder.shl(index, e.integer(1))), align=2, typ=I16), I64)


@operation(3)
def set_short(e: Emitter, shorts: Value, index: Value, value: Value) -> None:
    e.builder.store(e.builder.trunc(value, I16), e.pointer(shorts, e.builder.shl(index, e.integer(1))), align=2)


@operation(2, types.int64)
def byte_at(e: Emitter, bytes_: Value, index: Value) -> Value:
    """Element `index` of the uint8 numbers that begin at an address."""
    return e.builder.zext(e.builder.load(e.pointer(bytes_, index), align=1, typ=I8), I64)


@intrinsic
def _set_float(_context: Any, _floats: Any, _index: Any, _value: Any) -> Any:
    """Writes element `index` of the float32 numbers that begin at an address."""

    def codegen(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        e = Emitter(builder)
        floats, index, value = values
        builder.store(value, e.pointer(floats, builder.shl(index, e.integer(2))), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), codegen


set_float: Any = _set_float
