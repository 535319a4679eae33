// CBOW: a thread block of 16 warps trains one block of 128 targets at a time; each warp trains one group of 8 targets.
//
//   windows   each warp sums a share of the block's W_in rows; offsets join the shares into prefix sums of the whole block
//   groups    see groups.cu
//   contexts  a difference array over the block turns gradients into row changes, which are added to W_in row by row

// The windows of a block's 128 targets: lane l of every warp holds those of targets l, l + 32, l + 64 and l + 96.
struct Windows {
    i64 first, last;           // the block's targets
    i64 halo;                  // first row that any of them reads
    int rows;                  // number of rows read from there on
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
    // Every warp reads the totals of the warps before it before it changes its own rows.
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

// Every context row moves by the sum of the steps of the windows that contain it, except its own. Overwrites `changes`.
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
                    add_shared_row(slice.w_in + (i64)ids[j] * ROW_FLOATS + 4 * vector, slice.rates[ids[j]] * change);
                }
            }
        }
        __syncthreads();
    }
}

// The means of the context rows of a group's targets, zero for a target without context. The sums left and right of a target are
// taken separately, so its own row never enters. The same lanes write them and read them later.
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

// Shared memory: [a Group for each warp][word ids][hidden rows, later steps][prefix rows, later changes]. If `rows_in_shared`
// is 1, the prefix rows are in `workspace` instead; if it is 0, the hidden rows are too. The workspace is global memory with a
// part for each thread block, small enough to stay in the L2 cache.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) train_cbow(
    float* w_in, float* w_out, const int* tokens, const u8* left, const u8* right, i64 start, i64 stop,
    const u64* noise_table, i64 noise_cells, const float* rates, int vocab_size, u64 seed, SliceReport* report,
    double alpha_start, double alpha_end, int exact, int sequential,
    int most_rows, float* workspace, int rows_in_shared, double* losses, i64* examples_of)
{
    const Slice slice = {w_in, w_out, tokens, left, right, start, stop, noise_table, noise_cells, rates, vocab_size, seed, report};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    Group& group = ((Group*)shared_memory)[warp];
    int* ids = (int*)((Group*)shared_memory + warps);
    // Rows are read as float4, so they must be aligned to 16 bytes.
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
