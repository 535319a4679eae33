// What every kernel uses: sizes, memory access, arithmetic on float4, random draws, sums over a warp.
//
// The files of this folder form one source and include nothing: `slices.source` joins them in the order device, groups, cbow,
// skipgram, stream, merge. In all of them a lane is a thread's place in its warp, as in CUDA's own manual, never one of the
// lanes that a run is divided into; merge.cu calls what those have trained `copies` of the parameters. The source is compiled
// for one row length and one number of noise words, as in -DROW_FLOATS=128 -DNEGATIVE=5, and needs no headers.
// PTX is used only by the functions under `__CUDACC__`; tests replace those and run the rest on a CPU.

#if !defined(ROW_FLOATS) || !defined(NEGATIVE)
#error "compile with -DROW_FLOATS=<floats a row, a multiple of 8> -DNEGATIVE=<noise words>"
#endif

typedef unsigned long long u64;
typedef long long i64;
typedef unsigned char u8;

constexpr int BLOCK = 128;
constexpr int GROUP = 8;
constexpr int GROUPS = 16;
constexpr int SLOTS = 510;
constexpr u64 GAMMA = 0x9E3779B97F4A7C15ull;
constexpr u64 MIX_1 = 0xBF58476D1CE4E5B9ull;
constexpr u64 MIX_2 = 0x94D049BB133111EBull;

constexpr int MAX_THREADS = 512;
constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int VECTORS = ROW_FLOATS / 4;                    // float4s per row
constexpr int STRIPS = (VECTORS + WARP - 1) / WARP;        // float4s of a row that each lane owns
constexpr int PACKS = (NEGATIVE + 1 + 3) / 4;              // 4 rows of W_out times 8 targets fill the 32 lanes
constexpr int ERRORS = PACKS * WARP;                       // floats per warp
constexpr int NOISE_UNROLL = NEGATIVE < 3 ? NEGATIVE : 3;  // with 5, registers spill: there are 128
constexpr int ROWS_AT_ONCE = 8;                            // loads that each lane has in flight while summing windows
static_assert(ROW_FLOATS > 0 && ROW_FLOATS % 8 == 0, "ROW_FLOATS must be a positive multiple of 8");
static_assert(NEGATIVE > 0, "NEGATIVE must be at least 1");
static_assert(BLOCK == GROUP * GROUPS && BLOCK % WARP == 0 && GROUP * 4 == WARP, "one lane for each of 4 rows x 8 targets");

// What the kernels report to the host. Positions are stream positions, or (u64)−1 where nothing was found.
struct SliceReport {
    u64 bad_span;      // first target whose context leaves the stream
    u64 bad_word;      // first position with a word id outside the vocabulary
    u64 bad_noise;     // 1 + (u64)(unsigned)word of a noise word outside the vocabulary
    i64 first;         // the rows the slice reads are [first, last)
    i64 last;
    u64 reach_left;    // widest spans
    u64 reach_right;
};

#ifdef __CUDACC__
// Bypasses the L1 cache, which could hold rows as they were before other thread blocks moved them.
__device__ __forceinline__ float4 load_shared_row(const float* address)
{
    float4 value;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w) : "l"(address));
    return value;
}

__device__ __forceinline__ void add_shared_row(float* address, float4 value)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};"
                 :: "l"(address), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w) : "memory");
#else
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;\n\tred.relaxed.gpu.global.add.f32 [%0+4], %2;\n\t"
                 "red.relaxed.gpu.global.add.f32 [%0+8], %3;\n\tred.relaxed.gpu.global.add.f32 [%0+12], %4;"
                 :: "l"(address), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w) : "memory");
#endif
}

extern __shared__ float4 shared_memory[];
#endif

__device__ __forceinline__ float4 operator+(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ float4 operator-(float4 a, float4 b)
{
    return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}

__device__ __forceinline__ float4 operator*(float s, float4 a)
{
    return make_float4(s * a.x, s * a.y, s * a.z, s * a.w);
}

__device__ __forceinline__ float dot(float4 a, float4 b)
{
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

__device__ __forceinline__ float4 zero4()
{
    return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// SplitMix64 as in w2v_core/sampler.py: draw `counter` of the stream `seed`.
__device__ __forceinline__ u64 random_bits(u64 seed, u64 counter)
{
    u64 z = seed + (counter + 1) * GAMMA;
    z = (z ^ (z >> 30)) * MIX_1;
    z = (z ^ (z >> 27)) * MIX_2;
    return z ^ (z >> 31);
}

// The word drawn from a noise table by 64 random bits: the high 32 choose a cell, the low 32 one of its two words.
__device__ __forceinline__ int noise_word(const u64* noise_table, i64 cells, u64 bits)
{
    const u64 own = (bits >> 32) * (u64)cells >> 32;
    const u64 cell = noise_table[own];
    return (int)((bits & 0xFFFFFFFFull) < cell >> 32 ? own : cell & 0xFFFFFFFFull);
}

// 1 / (1 + e^-x), within 3e-7 of the exact value (no fast math). If e^-x overflows to infinity the result is 0; NaN stays NaN.
__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

// log(1 + e^x); not finite for NaN and for both infinities, so that divergence shows in the loss.
__device__ __forceinline__ float softplus(float x)
{
    return 0.5f * (fabsf(x) + x) + log1pf(expf(-fabsf(x)));
}

// One halving step: the first HALF values become those of the lane's own half, added to the partner lane's.
template <int HALF>
__device__ __forceinline__ void halve(float (&values)[WARP], int lane)
{
    const bool upper = (lane & HALF) != 0;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float kept = upper ? values[i + HALF] : values[i];
        const float sent = upper ? values[i] : values[i + HALF];
        values[i] = kept + __shfl_xor_sync(ALL_LANES, sent, HALF);
    }
}

// Lane l gets the sum of values[l] over the warp's lanes, with 31 shuffles instead of the 160 of 32 separate sums.
__device__ __forceinline__ float sum_to_own_lane(float (&values)[WARP], int lane)
{
    halve<16>(values, lane);
    halve<8>(values, lane);
    halve<4>(values, lane);
    halve<2>(values, lane);
    halve<1>(values, lane);
    return values[0];
}

__device__ __forceinline__ double sum_over_warp(double value)
{
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, half);
    return value;
}
