// Negative-sampling training for CUDA devices: the same draws, groups and updates as w2v_core/reference.py.
//
// Compiled for one row length and one number of noise words: -DROW_FLOATS=128 -DNEGATIVE=5. Needs no header. What is not
// CUDA C++ but PTX stands in the functions under `__CUDACC__`; tests replace them and run the rest on a CPU.
//
// Work. A thread block of 16 warps trains one block of 128 targets at a time, a warp one group of 8 targets:
//   windows   each warp sums a share of the block's W_in rows; offsets join them to prefix sums of the whole block
//   groups    a warp holds 8 targets: 32 dot products become one a lane by 31 shuffles, errors go to shared memory, and
//             a second reading of the rows makes gradients and updates
//   contexts  gradients become row changes through a difference array over the block, added to W_in row by row
// A lane owns the same float4 columns of every row from beginning to end, so rows need no exchange between lanes.
//
// `sequential` = 1 (one thread block): warps take turns where they write, so the result is the reference's to rounding
// and the same bits every time. 0: groups of a block and thread blocks run side by side on shared parameters, updates are
// atomic additions in the L2 cache, nobody waits. Then a read misses what was in flight: at most 128 targets a thread
// block. What that costs is measured in infra/decisions/0010-gpu-kernel.md.

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
constexpr int VECTORS = ROW_FLOATS / 4;                    // float4 a row
constexpr int STRIPS = (VECTORS + WARP - 1) / WARP;        // float4 of a row each lane owns
constexpr int PACKS = (NEGATIVE + 1 + 3) / 4;              // 4 rows of W_out times 8 targets fill the 32 lanes
constexpr int ERRORS = PACKS * WARP;                       // floats a warp
constexpr int NOISE_UNROLL = NEGATIVE < 3 ? NEGATIVE : 3;  // 5 spill at 128 registers
constexpr int ROWS_AT_ONCE = 8;                            // loads in flight a lane while summing windows
static_assert(ROW_FLOATS > 0 && ROW_FLOATS % 8 == 0, "ROW_FLOATS must be a positive multiple of 8");
static_assert(NEGATIVE > 0, "NEGATIVE must be at least 1");
static_assert(BLOCK == GROUP * GROUPS && BLOCK % WARP == 0 && GROUP * 4 == WARP, "one lane for each of 4 rows x 8 targets");

// What a launch tells the host. Positions are stream positions, −1 as u64 where nothing was found.
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
// Past the L1 cache: it would keep rows as they were before other thread blocks moved them.
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

// 1 / (1 + e^-x), no fast math: within 3e-7 of the exact value. e^-x overflows to infinity, which gives 0; NaN stays NaN.
__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

// log(1 + e^x); NaN for NaN and for both infinities, so that divergence shows in the loss.
__device__ __forceinline__ float softplus(float x)
{
    return 0.5f * (fabsf(x) + x) + log1pf(expf(-fabsf(x)));
}

// One halving: the first HALF values become those of the lane's own half, summed with the partner's.
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

// Lane l gets the sum over the warp's lanes of values[l], in 31 shuffles where 32 plain sums would take 160.
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

struct Slice {
    float* w_in;
    float* w_out;
    const int* tokens;
    const u8* left;
    const u8* right;
    i64 start, stop;
    const int* noise_table;
    int noise_shift;           // 64 − log2(length of the table)
    int vocab_size;
    u64 seed;
    SliceReport* report;
};

// A warp's group, in shared memory: read by all lanes at once, which costs no more than a register and spills nothing.
struct Group {
    float errors[ERRORS];      // −α·error of (row k, target u) at 8k + u; row 0 is the target's own row
    int noise[NEGATIVE];       // word ids
    int words[GROUP];          // the target's word, −1 if it is not trained
    int hidden[GROUP];         // its hidden row: of this thread block's memory (CBOW) or of W_in (skip-gram)
    int width[GROUP];          // context rows
    int before[GROUP];         // those of them before the target
    float alpha;
};

// Lane u looks up member u of group g, the target first + g + 16u; the others do nothing.
__device__ __forceinline__ void find_members(const Slice& slice, Group& group, i64 first, i64 last, int g, double alpha_start, double alpha_end, int lane)
{
    if (lane < GROUP) {
        const i64 i = first + g + lane * GROUPS;
        const int width = i < last ? slice.left[i] + slice.right[i] : 0;
        group.width[lane] = width;
        group.before[lane] = width > 0 ? slice.left[i] : 0;
        group.words[lane] = width > 0 ? slice.tokens[i] : -1;
        group.hidden[lane] = g + lane * GROUPS;
    }
    if (lane == 0)
        group.alpha = (float)(alpha_start + (alpha_end - alpha_start) * ((double)(first - slice.start) / (double)(slice.stop - slice.start)));
    __syncwarp(ALL_LANES);
}

// Lanes draw the group's K words; false (for the whole warp) if one is outside the vocabulary.
__device__ __forceinline__ bool draw_noise(const Slice& slice, Group& group, u64 first_draw, int lane)
{
    bool good = true;
    for (int k = lane; k < NEGATIVE; k += WARP) {
        const int word = slice.noise_table[random_bits(slice.seed, first_draw + k) >> slice.noise_shift];
        if ((unsigned)word >= (unsigned)slice.vocab_size) {
            good = false;
            atomicCAS(&slice.report->bad_noise, 0ull, 1ull + (unsigned)word);
        }
        group.noise[k] = word;
    }
    __syncwarp(ALL_LANES);
    return __all_sync(ALL_LANES, good);
}

__device__ __forceinline__ float4 parameter_part(const float* matrix, int word, int vector)
{
    return word < 0 || vector >= VECTORS ? zero4() : load_shared_row(matrix + (i64)word * ROW_FLOATS + 4 * vector);
}

template <bool SKIPGRAM>
__device__ __forceinline__ float4 hidden_part(const Slice& slice, const Group& group, const float* steps, int u, int vector)
{
    if (SKIPGRAM)
        return parameter_part(slice.w_in, group.words[u] < 0 ? -1 : group.hidden[u], vector);
    return vector >= VECTORS ? zero4() : *(const float4*)(steps + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector);
}

// Logits of 4 rows with 8 targets, one a lane: pack 0 is the targets' own rows and 3 noise rows, pack p noise rows 4p − 1 ….
template <bool SKIPGRAM>
__device__ __forceinline__ float find_logit(const Slice& slice, const Group& group, const float* steps, int pack, int lane)
{
    float logits[WARP];
#pragma unroll
    for (int i = 0; i < WARP; i++)
        logits[i] = 0.0f;
#pragma unroll 1
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        float4 hidden[GROUP];
#pragma unroll
        for (int u = 0; u < GROUP; u++)
            hidden[u] = hidden_part<SKIPGRAM>(slice, group, steps, u, vector);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int k = pack * 4 + r;
            if (k == 0) {
#pragma unroll
                for (int u = 0; u < GROUP; u++)
                    logits[u] += dot(hidden[u], parameter_part(slice.w_out, group.words[u], vector));
            } else if (k <= NEGATIVE) {
                const float4 row = parameter_part(slice.w_out, group.noise[k - 1], vector);
#pragma unroll
                for (int u = 0; u < GROUP; u++)
                    logits[r * GROUP + u] += dot(hidden[u], row);
            }
        }
    }
    return sum_to_own_lane(logits, lane);
}

// Trains one group: 8 targets (or pairs), the rows of their own words and of K noise words. Adds to the lane's loss and
// examples. CBOW leaves −α·gradient in the hidden row's place. A column is read completely before it is first written.
template <bool SKIPGRAM>
__device__ __forceinline__ void train_group(const Slice& slice, Group& group, float* steps, int exact, int lane, double& loss, int& examples)
{
    const int my_word = group.words[lane % GROUP];
#pragma unroll 1
    for (int pack = 0; pack < PACKS; pack++) {
        const float logit = find_logit<SKIPGRAM>(slice, group, steps, pack, lane);
        const int k = pack * 4 + lane / GROUP;
        float error = 0.0f;
        if (my_word >= 0 && k <= NEGATIVE && (k == 0 || group.noise[k - 1] != my_word)) {
            error = sigmoid(logit) - (k == 0 ? 1.0f : 0.0f);
            loss += softplus(k == 0 ? -logit : logit);
            examples += k == 0;
        }
        group.errors[pack * WARP + lane] = -group.alpha * error;
    }
    __syncwarp(ALL_LANES);

#pragma unroll 1
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        float4 hidden[GROUP], step[GROUP];
#pragma unroll
        for (int u = 0; u < GROUP; u++) {
            hidden[u] = hidden_part<SKIPGRAM>(slice, group, steps, u, vector);
            step[u] = group.errors[u] * parameter_part(slice.w_out, group.words[u], vector);
        }
#pragma unroll NOISE_UNROLL
        for (int k = 1; k <= NEGATIVE; k++) {
            const float4 row = parameter_part(slice.w_out, group.noise[k - 1], vector);
#pragma unroll
            for (int u = 0; u < GROUP; u++)
                step[u] = step[u] + group.errors[k * GROUP + u] * row;
        }
        if (vector >= VECTORS)
            continue;
#pragma unroll
        for (int u = 0; u < GROUP; u++)
            if (group.words[u] >= 0)
                add_shared_row(slice.w_out + (i64)group.words[u] * ROW_FLOATS + 4 * vector, group.errors[u] * hidden[u]);
#pragma unroll NOISE_UNROLL
        for (int k = 1; k <= NEGATIVE; k++) {
            float4 change = zero4();
#pragma unroll
            for (int u = 0; u < GROUP; u++)
                change = change + group.errors[k * GROUP + u] * hidden[u];
            add_shared_row(slice.w_out + (i64)group.noise[k - 1] * ROW_FLOATS + 4 * vector, change);
        }
#pragma unroll
        for (int u = 0; u < GROUP; u++) {
            if (!SKIPGRAM) {
                const float scale = exact ? 1.0f / (float)max(group.width[u], 1) : 1.0f;
                *(float4*)(steps + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector) = scale * step[u];
            } else if (group.words[u] >= 0) {
                add_shared_row(slice.w_in + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector, step[u]);
            }
        }
    }
    __syncwarp(ALL_LANES);
}

// The windows of a block's 128 targets: lane l of every warp holds those of targets l, l + 32, l + 64 and l + 96.
struct Windows {
    i64 first, last;           // the block's targets
    i64 halo;                  // first row any of them reads
    int rows;                  // rows from there on
    int begin[BLOCK / WARP];   // first row of the window, counted from halo; −1 where there is no target
    int end[BLOCK / WARP];     // one past its last row
};

__device__ __forceinline__ Windows find_windows(const Slice& slice, i64 first, int lane)
{
    Windows windows;
    windows.first = first;
    windows.last = min(first + BLOCK, slice.stop);
    int lowest = 0, highest = 0;  // counted from first
#pragma unroll
    for (int q = 0; q < BLOCK / WARP; q++) {
        const i64 i = first + q * WARP + lane;
        const bool present = i < windows.last;
        windows.begin[q] = present ? q * WARP + lane - slice.left[i] : 0;
        windows.end[q] = present ? q * WARP + lane + slice.right[i] + 1 : 0;
        lowest = min(lowest, windows.begin[q]);
        highest = max(highest, windows.end[q]);
    }
#pragma unroll
    for (int half = WARP / 2; half > 0; half /= 2) {
        lowest = min(lowest, __shfl_xor_sync(ALL_LANES, lowest, half));
        highest = max(highest, __shfl_xor_sync(ALL_LANES, highest, half));
    }
#pragma unroll
    for (int q = 0; q < BLOCK / WARP; q++) {
        const bool present = first + q * WARP + lane < windows.last;
        windows.begin[q] = present ? windows.begin[q] - lowest : -1;
        windows.end[q] = present ? windows.end[q] - lowest : -1;
    }
    windows.halo = first + lowest;
    windows.rows = highest - lowest;
    return windows;
}

// prefix row j+1 = sum of the block's W_in rows 0 … j, row 0 = 0. Called by all threads; ends with a barrier.
__device__ __forceinline__ void sum_windows(const Slice& slice, const int* ids, float* prefix, int rows, int warp, int warps, int lane)
{
    const int share = (rows + warps - 1) / warps;
    const int begin = min(warp * share, rows), end = min(begin + share, rows);
#pragma unroll 1
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        const bool inside = vector < VECTORS;
        float4 running = zero4();
        if (inside && warp == 0)
            *(float4*)(prefix + 4 * vector) = running;
#pragma unroll 1
        for (int j = begin; inside && j < end; j += ROWS_AT_ONCE) {
            float4 row[ROWS_AT_ONCE];
#pragma unroll
            for (int t = 0; t < ROWS_AT_ONCE; t++)
                row[t] = j + t < end ? load_shared_row(slice.w_in + (i64)ids[j + t] * ROW_FLOATS + 4 * vector) : zero4();
#pragma unroll
            for (int t = 0; t < ROWS_AT_ONCE; t++) {
                running = running + row[t];
                if (j + t < end)
                    *(float4*)(prefix + (i64)(j + t + 1) * ROW_FLOATS + 4 * vector) = running;
            }
        }
    }
    __syncthreads();
    // Every warp reads the totals of the warps before it, and only then moves its own rows.
    float4 offset[STRIPS];
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        offset[strip] = zero4();
        for (int other = 1; vector < VECTORS && other <= warp; other++)
            offset[strip] = offset[strip] + *(const float4*)(prefix + (i64)min(other * share, rows) * ROW_FLOATS + 4 * vector);
    }
    __syncthreads();
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        for (int j = begin + 1; vector < VECTORS && j <= end; j++) {
            float4* place = (float4*)(prefix + (i64)j * ROW_FLOATS + 4 * vector);
            *place = *place + offset[strip];
        }
    }
    __syncthreads();
}

// Adds to `running` the steps of the targets whose `edge` is row j, in ascending order, times `sign`.
__device__ __forceinline__ float4 add_steps_at(float4 running, const int (&edge)[BLOCK / WARP], int j, float sign, const float* steps, int vector)
{
#pragma unroll
    for (int q = 0; q < BLOCK / WARP; q++) {
        unsigned here = __ballot_sync(ALL_LANES, edge[q] == j);
        while (here) {
            const int target = q * WARP + __ffs(here) - 1;
            here &= here - 1;
            if (vector < VECTORS)
                running = running + sign * *(const float4*)(steps + (i64)target * ROW_FLOATS + 4 * vector);
        }
    }
    return running;
}

// Every context row moves by the sum of the steps of the windows it is in, its own excepted. `changes` is overwritten.
__device__ __forceinline__ void move_contexts(
    const Slice& slice, const Windows& windows, const int* ids, const float* steps, float* changes, int sequential, int warp, int warps, int lane)
{
    const int share = (windows.rows + warps - 1) / warps;
    const int begin = min(warp * share, windows.rows), end = min(begin + share, windows.rows);
    const int own = (int)(windows.first - windows.halo);
#pragma unroll 1
    for (int strip = 0; strip < STRIPS; strip++) {
        const int vector = strip * WARP + lane;
        float4 running = zero4();
        for (int j = begin; j < end; j++) {
            running = add_steps_at(running, windows.begin, j, 1.0f, steps, vector);
            running = add_steps_at(running, windows.end, j, -1.0f, steps, vector);
            if (vector < VECTORS)
                *(float4*)(changes + (i64)j * ROW_FLOATS + 4 * vector) = running;
        }
    }
    __syncthreads();
    for (int turn = 0; turn < (sequential ? warps : 1); turn++) {
        if (!sequential || turn == warp) {
#pragma unroll 1
            for (int strip = 0; strip < STRIPS; strip++) {
                const int vector = strip * WARP + lane;
                if (vector >= VECTORS)
                    continue;
                float4 offset = zero4();
                for (int other = 1; other <= warp && begin < end; other++)
                    offset = offset + *(const float4*)(changes + (i64)(other * share - 1) * ROW_FLOATS + 4 * vector);
                for (int j = begin; j < end; j++) {
                    float4 change = offset + *(const float4*)(changes + (i64)j * ROW_FLOATS + 4 * vector);
                    if (j >= own && j - own < (int)(windows.last - windows.first))
                        change = change - *(const float4*)(steps + (i64)(j - own) * ROW_FLOATS + 4 * vector);
                    add_shared_row(slice.w_in + (i64)ids[j] * ROW_FLOATS + 4 * vector, change);
                }
            }
        }
        __syncthreads();
    }
}

// Means of the context rows of a group's targets, zero where there is none: left and right sums apart, so that the
// target's own row never enters. Written and later read by the same lanes.
__device__ __forceinline__ void find_hidden(const Group& group, const float* prefix, float* steps, int own_first, bool good, int lane)
{
#pragma unroll 1
    for (int vector = lane; vector < VECTORS; vector += WARP) {
        const float* column = prefix + 4 * vector;
#pragma unroll 2
        for (int u = 0; u < GROUP; u++) {
            const int width = good ? group.width[u] : 0;
            float4 mean = zero4();
            if (width > 0) {
                const i64 own = own_first + group.hidden[u], lower = own - group.before[u], upper = lower + width + 1;
                const float4 before = *(const float4*)(column + own * ROW_FLOATS) - *(const float4*)(column + lower * ROW_FLOATS);
                const float4 after = *(const float4*)(column + upper * ROW_FLOATS) - *(const float4*)(column + (own + 1) * ROW_FLOATS);
                mean = (1.0f / (float)width) * (before + after);
            }
            *(float4*)(steps + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector) = mean;
        }
    }
}

// The blocks of the slice this thread block trains: a run of its own. Neighbouring blocks share subjects, so they share
// words: training them side by side costs quality that runs far apart do not (decision 0010).
struct Run {
    i64 first, last;
};

__device__ __forceinline__ Run find_run(i64 start, i64 stop)
{
    const i64 blocks = (stop - start + BLOCK - 1) / BLOCK;
    const i64 share = (blocks + gridDim.x - 1) / gridDim.x;
    return {min(blockIdx.x * share, blocks), min((blockIdx.x + 1) * share, blocks)};
}

__device__ __forceinline__ void write_totals(double loss, int examples, double* losses, i64* examples_of, int warp, int warps, int lane)
{
    const double warp_loss = sum_over_warp(loss), warp_examples = sum_over_warp((double)examples);
    if (lane == 0) {
        losses[blockIdx.x * warps + warp] = warp_loss;
        examples_of[blockIdx.x * warps + warp] = (i64)warp_examples;
    }
}

// Shared memory: [a Group for each warp][word ids][hidden rows, later steps][prefix rows, later changes]. Where
// `rows_in_shared` is 1 the prefix rows, where it is 0 the hidden rows too lie in `workspace`: global memory, a part for
// each thread block, small enough to stay in the L2 cache.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) train_cbow(
    float* w_in, float* w_out, const int* tokens, const u8* left, const u8* right, i64 start, i64 stop,
    const int* noise_table, int noise_shift, int vocab_size, u64 seed, SliceReport* report,
    double alpha_start, double alpha_end, int exact, int sequential,
    int most_rows, float* workspace, int rows_in_shared, double* losses, i64* examples_of)
{
    const Slice slice = {w_in, w_out, tokens, left, right, start, stop, noise_table, noise_shift, vocab_size, seed, report};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    Group& group = ((Group*)shared_memory)[warp];
    int* ids = (int*)((Group*)shared_memory + warps);
    // Rows are read as float4, so they start on 16 bytes.
    float* in_shared = (float*)shared_memory + (warps * (int)sizeof(Group) / 4 + most_rows + 3) / 4 * 4;
    float* in_global = workspace + (i64)blockIdx.x * (BLOCK + most_rows + 1) * ROW_FLOATS;
    float* steps = rows_in_shared >= 1 ? in_shared : in_global;
    float* prefix = (rows_in_shared == 2 ? in_shared : in_global) + BLOCK * ROW_FLOATS;
    double loss = 0.0;
    int examples = 0;

    const Run run = find_run(start, stop);
    for (i64 block = run.first; block < run.last; block++) {
        const i64 first = start + block * BLOCK;
        const Windows windows = find_windows(slice, first, lane);
        for (int j = threadIdx.x; j < windows.rows; j += blockDim.x)
            ids[j] = tokens[windows.halo + j];
        __syncthreads();
        sum_windows(slice, ids, prefix, windows.rows, warp, warps, lane);
        for (int g = 0; g < GROUPS; g++) {
            if (g % warps == warp && first + g < windows.last) {
                find_members(slice, group, first, windows.last, g, alpha_start, alpha_end, lane);
                const bool good = draw_noise(slice, group, (u64)(block * GROUPS + g) * NEGATIVE, lane);
                find_hidden(group, prefix, steps, (int)(first - windows.halo), good, lane);
                if (good)
                    train_group<false>(slice, group, steps, exact, lane, loss, examples);
            }
            if (sequential)
                __syncthreads();
        }
        __syncthreads();
        move_contexts(slice, windows, ids, steps, prefix, sequential, warp, warps, lane);
    }
    write_totals(loss, examples, losses, examples_of, warp, warps, lane);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) train_skipgram(
    float* w_in, float* w_out, const int* tokens, const u8* left, const u8* right, i64 start, i64 stop,
    const int* noise_table, int noise_shift, int vocab_size, u64 seed, SliceReport* report,
    double alpha_start, double alpha_end, int sequential, double* losses, i64* examples_of)
{
    const Slice slice = {w_in, w_out, tokens, left, right, start, stop, noise_table, noise_shift, vocab_size, seed, report};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    Group& group = ((Group*)shared_memory)[warp];
    double loss = 0.0;
    int examples = 0;

    const Run run = find_run(start, stop);
    for (i64 block = run.first; block < run.last; block++) {
        const i64 first = start + block * BLOCK, last = min(first + BLOCK, stop);
        for (int g = 0; g < GROUPS; g++) {
            if (g % warps == warp && first + g < last) {
                find_members(slice, group, first, last, g, alpha_start, alpha_end, lane);
                int widest = 0;
                for (int u = 0; u < GROUP; u++)
                    widest = max(widest, group.width[u]);
                bool good = true;
                for (int slot = 0; slot < widest && good; slot++) {
                    if (lane < GROUP) {
                        const bool present = slot < group.width[lane];
                        const i64 i = first + g + lane * GROUPS;
                        const i64 position = i - group.before[lane] + slot + (slot >= group.before[lane]);
                        group.words[lane] = present ? tokens[i] : -1;
                        group.hidden[lane] = present ? tokens[position] : -1;
                    }
                    good = draw_noise(slice, group, ((u64)(block * GROUPS + g) * SLOTS + slot) * NEGATIVE, lane);
                    if (good)
                        train_group<true>(slice, group, nullptr, 0, lane, loss, examples);
                }
            }
            if (sequential)
                __syncthreads();
        }
        __syncthreads();  // so that no warp runs ahead of its thread block by more than a block of targets
    }
    write_totals(loss, examples, losses, examples_of, warp, warps, lane);
}

// Spans of the targets [start, stop) of a stream of `length` rows; the report says where they lead.
extern "C" __global__ void check_spans(const u8* left, const u8* right, i64 start, i64 stop, i64 length, SliceReport* report)
{
    for (i64 i = start + blockIdx.x * (i64)blockDim.x + threadIdx.x; i < stop; i += (i64)gridDim.x * blockDim.x) {
        if (i - left[i] < 0 || i + right[i] >= length)
            atomicMin(&report->bad_span, (u64)i);
        atomicMin(&report->first, i - left[i]);
        atomicMax(&report->last, i + right[i] + 1);
        atomicMax(&report->reach_left, (u64)left[i]);
        atomicMax(&report->reach_right, (u64)right[i]);
    }
}

// Word ids of the rows that check_spans found to be read. Launched after it on the same stream.
extern "C" __global__ void check_words(const int* tokens, int vocab_size, SliceReport* report)
{
    if (report->bad_span != ~0ull)
        return;
    const i64 last = report->last;
    for (i64 i = report->first + blockIdx.x * (i64)blockDim.x + threadIdx.x; i < last; i += (i64)gridDim.x * blockDim.x)
        if ((unsigned)tokens[i] >= (unsigned)vocab_size)
            atomicMin(&report->bad_word, (u64)i);
}

// One warp a group of a block: replays its draws. Groups without a context draw nothing.
extern "C" __global__ void mark_drawn(
    u8* marks_out, const int* tokens, const u8* left, const u8* right, i64 start, i64 stop,
    const int* noise_table, int noise_shift, int vocab_size, u64 seed, int skipgram, int negative, SliceReport* report)
{
    const int lane = threadIdx.x % WARP;
    const i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    const i64 groups = (stop - start + BLOCK - 1) / BLOCK * GROUPS;
    for (i64 index = (blockIdx.x * (i64)blockDim.x + threadIdx.x) / WARP; index < groups; index += warps) {
        int widest = 0;
        for (int u = 0; u < GROUP; u++) {
            const i64 i = start + index / GROUPS * BLOCK + index % GROUPS + u * GROUPS;
            const int width = i < stop ? left[i] + right[i] : 0;
            if (width > 0 && lane == 0)
                marks_out[tokens[i]] = 1;
            widest = max(widest, width);
        }
        const int draws = (skipgram ? widest : min(widest, 1)) * negative;
        const u64 first_draw = (u64)index * (skipgram ? SLOTS : 1) * negative;
        for (int d = lane; d < draws; d += WARP) {
            const int word = noise_table[random_bits(seed, first_draw + d) >> noise_shift];
            if ((unsigned)word < (unsigned)vocab_size)
                marks_out[word] = 1;
            else
                atomicCAS(&report->bad_noise, 0ull, 1ull + (unsigned)word);
        }
    }
}

extern "C" __global__ void mark_read(u8* marks_in, const int* tokens, i64 first, i64 last)
{
    for (i64 i = first + blockIdx.x * (i64)blockDim.x + threadIdx.x; i < last; i += (i64)gridDim.x * blockDim.x)
        marks_in[tokens[i]] = 1;
}

// Folds the changes of `count` lanes since `base`, one warp a row: (0,1), (2,3) …, then (01,23) …, an odd one passes on.
// The lanes' own rows hold the partial results; at the end base and all lanes hold base + merged change.
extern "C" __global__ void merge_rows(float* base, float* const* lanes, int count, i64 rows, int row_floats, int adasum)
{
    const int lane = threadIdx.x % WARP;
    const i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    for (i64 row = (blockIdx.x * (i64)blockDim.x + threadIdx.x) / WARP; row < rows; row += warps) {
        const i64 at = row * row_floats;
        for (int other = 0; count > 1 && other < count; other++)
            for (int d = lane; d < row_floats; d += WARP)
                lanes[other][at + d] -= base[at + d];
        for (int stride = 1; stride < count; stride *= 2) {
            for (int index = 0; index + stride < count; index += 2 * stride) {
                float* left = lanes[index] + at;
                const float* right = lanes[index + stride] + at;
                double both = 0.0, left_norm = 0.0, right_norm = 0.0;
                for (int d = lane; adasum && d < row_floats; d += WARP) {
                    const double l = left[d], r = right[d];
                    both += l * r;
                    left_norm += l * l;
                    right_norm += r * r;
                }
                both = sum_over_warp(both);
                left_norm = sum_over_warp(left_norm);
                right_norm = sum_over_warp(right_norm);
                const double left_factor = left_norm != 0.0 ? 1.0 - both / (2.0 * left_norm) : 1.0;
                const double right_factor = right_norm != 0.0 ? 1.0 - both / (2.0 * right_norm) : 1.0;
                for (int d = lane; d < row_floats; d += WARP)
                    left[d] = adasum ? (float)(left_factor * left[d] + right_factor * right[d]) : left[d] + right[d];
            }
        }
        for (int d = lane; d < row_floats; d += WARP) {
            const float change = adasum ? lanes[0][at + d] : lanes[0][at + d] / (float)count;
            // With one lane nothing is added or scaled: base + (lane − base) need not be the lane's bits.
            const float merged = count > 1 ? base[at + d] + change : lanes[0][at + d];
            base[at + d] = merged;
            for (int other = 0; other < count; other++)
                lanes[other][at + d] = merged;
        }
    }
}
