// How a warp trains a group of 8 targets, for both models: the same draws, groups and updates as w2v_core/reference.py.
//
// 31 shuffles reduce 32 dot products to one per lane, errors go to shared memory, and a second pass over the rows makes
// gradients and updates. A lane owns the same float4 columns of every row from beginning to end, so rows are never exchanged
// between lanes.
//
// `sequential` = 1 (one thread block): warps take turns to write, so the result equals the reference's within rounding and has
// the same bits every time. `sequential` = 0: groups and thread blocks run side by side on shared parameters, updates are
// atomic additions in the L2 cache, and nothing waits. A read may then miss the updates in flight, those of at most 128 targets
// per thread block. infra/decisions/0010-gpu-kernel.md has measurements of what that costs.

struct Slice {
    float* w_in;
    float* w_out;
    const int* tokens;
    const u8* left;
    const u8* right;
    i64 start, stop;
    const u64* noise_table;
    i64 noise_cells;
    const float* rates;        // by word: the factor of every change to its rows
    int vocab_size;
    u64 seed;
    SliceReport* report;
};

// A warp's group, in shared memory: all lanes read the same address at once, which is as fast as a register and spills none.
struct Group {
    float errors[ERRORS];      // −α·error of (row k, target u) at 8k + u; row 0 is the target's own row
    int noise[NEGATIVE];       // word ids
    int words[GROUP];          // the target's word, −1 if it is not trained
    int hidden[GROUP];         // its hidden row: an index into this thread block's memory (CBOW) or into W_in (skip-gram)
    int width[GROUP];          // number of context rows
    int before[GROUP];         // how many of them precede the target
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

// Draws the group's K noise words; false, for the whole warp, if one of them is outside the vocabulary.
__device__ __forceinline__ bool draw_noise(const Slice& slice, Group& group, u64 first_draw, int lane)
{
    bool good = true;
    for (int k = lane; k < NEGATIVE; k += WARP) {
        const int word = noise_word(slice.noise_table, slice.noise_cells, random_bits(slice.seed, first_draw + k));
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

// The logits of 4 rows with 8 targets, one per lane. Pack 0 is the targets' own rows and 3 noise rows, pack p > 0 the noise rows
// from 4p − 1 on.
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

// Trains one group: 8 targets (or pairs), with the rows of their own words and of K noise words. Adds to the lane's loss and
// examples. CBOW replaces each hidden row by −α·gradient. A column is read completely before it is first written.
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
                add_shared_row(slice.w_out + (i64)group.words[u] * ROW_FLOATS + 4 * vector, slice.rates[group.words[u]] * group.errors[u] * hidden[u]);
#pragma unroll NOISE_UNROLL
        for (int k = 1; k <= NEGATIVE; k++) {
            float4 change = zero4();
#pragma unroll
            for (int u = 0; u < GROUP; u++)
                change = change + group.errors[k * GROUP + u] * hidden[u];
            add_shared_row(slice.w_out + (i64)group.noise[k - 1] * ROW_FLOATS + 4 * vector, slice.rates[group.noise[k - 1]] * change);
        }
#pragma unroll
        for (int u = 0; u < GROUP; u++) {
            if (!SKIPGRAM) {
                const float scale = exact ? 1.0f / (float)max(group.width[u], 1) : 1.0f;
                *(float4*)(steps + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector) = scale * step[u];
            } else if (group.words[u] >= 0) {
                add_shared_row(slice.w_in + (i64)group.hidden[u] * ROW_FLOATS + 4 * vector, slice.rates[group.hidden[u]] * step[u]);
            }
        }
    }
    __syncwarp(ALL_LANES);
}

// The blocks of the slice that this thread block trains: consecutive ones. Neighbouring blocks of the stream share topics and so
// words; training them side by side would cost quality, which runs that lie far apart do not (decision 0010).
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
