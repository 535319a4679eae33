// Runs the source of a CUDA kernel on a CPU: every thread is a coroutine that waits at barriers and warp operations.
//
// Include it before the .cu file, then call `simt::launch`. Thread blocks run one after another; within a block, the warps that
// can run are taken in order (schedule 0) or at random (any other schedule), so a missing barrier shows as a result that
// changes with the schedule. Threads that meet at different barriers, or wait for one that has ended, abort with a message.
// This says nothing about speed, about the memory model of a device, or about the rounding of its expf and log1pf.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::max;
using std::min;
inline long long min(long long a, int b) { return std::min(a, (long long)b); }

struct alignas(16) float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Index { unsigned x; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static std::vector<float4> shared_storage;
#define shared_memory (shared_storage.data())

namespace simt {

struct Meeting { int arrived = 0, place = 0; unsigned long long passed = 0; };
struct Warp { Meeting meeting; uint64_t sent[32], shown[32]; };
struct Thread { ucontext_t context; jmp_buf at; std::vector<char> stack; bool begun = false, done = false; };

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static Meeting block_meeting;
static jmp_buf scheduler;
static int current, alive;
static std::function<void()> body;

[[noreturn]] inline void fail(const char* message, int place)
{
    std::fprintf(stderr, "simt: %s (line %d, thread block %u, thread %d)\n", message, place, blockIdx.x, current);
    std::fflush(stderr);
    std::abort();
}

// A context starts a coroutine; jumps switch between coroutines, because swapcontext costs two system calls.
inline void pause()
{
    if (!_setjmp(threads[current].at))
        _longjmp(scheduler, 1);
}

inline void step(int thread)
{
    if (threads[thread].done)
        return;
    current = thread;
    threadIdx.x = (unsigned)thread;
    if (_setjmp(scheduler))
        return;
    if (threads[thread].begun)
        _longjmp(threads[thread].at, 1);
    threads[thread].begun = true;
    setcontext(&threads[thread].context);
}

// Waits until `expected` threads have called it with the same place.
inline void meet(Meeting& meeting, int expected, int place, const std::function<void()>& last = {})
{
    if (meeting.arrived && meeting.place != place)
        fail("threads meet at different barriers or warp operations", place);
    meeting.place = place;
    const unsigned long long round = meeting.passed;
    if (++meeting.arrived == expected) {
        if (last)
            last();
        meeting.arrived = 0;
        meeting.passed++;
        return;
    }
    while (meeting.passed == round)
        pause();
}

template <class T>
T exchange(unsigned mask, T value, int source, int place)
{
    if (mask != 0xffffffffu)
        fail("expected a warp operation of all 32 lanes", place);
    Warp& warp = warps[current / 32];
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    warp.sent[current % 32] = bits;
    meet(warp.meeting, 32, place, [&] { std::memcpy(warp.shown, warp.sent, sizeof warp.sent); });
    std::memcpy(&value, &warp.shown[source], sizeof value);
    return value;
}

inline unsigned ballot(unsigned mask, bool value, int place)
{
    exchange<int>(mask, value, 0, place);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++)
        bits |= (warps[current / 32].shown[lane] & 1u) << lane;
    return bits;
}

inline void entry()
{
    body();
    threads[current].done = true;
    alive--;
    _longjmp(scheduler, 1);
}

inline void run_block(unsigned schedule)
{
    std::mt19937 random(schedule + blockIdx.x);
    const int count = (int)threads.size();
    block_meeting = {};
    std::fill(warps.begin(), warps.end(), Warp{});
    for (auto& thread : threads) {
        thread.begun = thread.done = false;
        thread.stack.resize(1 << 16);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, entry, 0);
    }
    alive = count;
    std::vector<int> order(count / 32);
    for (size_t w = 0; w < order.size(); w++)
        order[w] = (int)w;
    unsigned long long before = 0;
    for (int idle = 0; alive > 0;) {
        if (schedule)
            std::shuffle(order.begin(), order.end(), random);
        unsigned long long progress = (unsigned long long)(count - alive) + block_meeting.passed;
        const unsigned long long barriers = block_meeting.passed;
        for (int w : order) {
            // In order: a warp runs until it waits for the others. At random: for a few steps.
            int turns = schedule ? 1 + (int)(random() % 40) : 1 << 30;
            unsigned long long passed = ~0ull;
            for (; turns > 0 && passed != warps[w].meeting.passed; turns--) {
                passed = warps[w].meeting.passed;
                for (int lane = 0; lane < 32; lane++)
                    step(w * 32 + lane);
            }
            progress += warps[w].meeting.passed;
            if (!schedule && barriers != block_meeting.passed)
                break;  // so that the first warp goes first again
        }
        idle = progress == before ? idle + 1 : 0;
        before = progress;
        if (idle > 3)
            fail("no thread can go on: a barrier some threads never reach", block_meeting.place);
    }
}

inline void launch(int blocks, int block_threads, size_t shared_bytes, unsigned schedule, std::function<void()> kernel)
{
    body = std::move(kernel);
    threads = std::vector<Thread>(block_threads);
    warps.assign(block_threads / 32, Warp{});
    gridDim.x = (unsigned)blocks;
    blockDim.x = (unsigned)block_threads;
    for (int block = 0; block < blocks; block++) {
        blockIdx.x = (unsigned)block;
        // Not a number in every float: shared memory read before it is written shows.
        shared_storage.assign((shared_bytes + 15) / 16, make_float4(NAN, NAN, NAN, NAN));
        run_block(schedule);
    }
}

template <class T>
T swap_in(T* address, bool change, T value)
{
    const T old = *address;
    if (change)
        *address = value;
    return old;
}

}  // namespace simt

#define __syncthreads() simt::meet(simt::block_meeting, (int)simt::threads.size(), __LINE__)
#define __syncwarp(mask) simt::exchange<int>(mask, 0, 0, __LINE__)
#define __shfl_xor_sync(mask, value, other) simt::exchange(mask, value, (simt::current % 32) ^ (other), __LINE__)
#define __ballot_sync(mask, value) simt::ballot(mask, value, __LINE__)
#define __all_sync(mask, value) (simt::ballot(mask, value, __LINE__) == 0xffffffffu)
#define __ffs(value) __builtin_ffs((int)(value))

inline float4 load_shared_row(const float* address)
{
    if ((uintptr_t)address % 16)
        simt::fail("a row is read that does not start on 16 bytes", __LINE__);
    return *(const float4*)address;
}

inline void add_shared_row(float* address, float4 value)
{
    address[0] += value.x;
    address[1] += value.y;
    address[2] += value.z;
    address[3] += value.w;
}

template <class T> T atomicMin(T* address, T value) { return simt::swap_in(address, value < *address, value); }
template <class T> T atomicMax(T* address, T value) { return simt::swap_in(address, value > *address, value); }
template <class T> T atomicCAS(T* address, T expected, T value) { return simt::swap_in(address, *address == expected, value); }
