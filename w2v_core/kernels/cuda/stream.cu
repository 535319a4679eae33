// What the host asks about a slice of the stream before and beside training: is it sound, and which rows does it touch.

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
    const u64* noise_table, i64 noise_cells, int vocab_size, u64 seed, int skipgram, int negative, SliceReport* report)
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
            const int word = noise_word(noise_table, noise_cells, random_bits(seed, first_draw + d));
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
