// Skip-gram: blocks and groups as in CBOW, but a group trains the pairs of its targets with their n-th context word, n by n.

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) train_skipgram(
    float* w_in, float* w_out, const int* tokens, const u8* left, const u8* right, i64 start, i64 stop,
    const u64* noise_table, i64 noise_cells, const float* rates, int vocab_size, u64 seed, SliceReport* report,
    double alpha_start, double alpha_end, int sequential, double* losses, i64* examples_of)
{
    const Slice slice = {w_in, w_out, tokens, left, right, start, stop, noise_table, noise_cells, rates, vocab_size, seed, report};
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
        __syncthreads();  // no warp may run ahead of its thread block by more than a block of targets
    }
    write_totals(loss, examples, losses, examples_of, warp, warps, lane);
}
