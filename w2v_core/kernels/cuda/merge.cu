// Merges copies of the parameters that were trained separately, row by row.

// Folds the changes of `count` copies since `base`, one warp per row: (0,1), (2,3) …, then (01,23) …; an odd one out passes to
// the next level. The copies' own rows hold partial results; at the end base and all copies hold base + merged change.
extern "C" __global__ void merge_rows(float* base, float* const* copies, int count, i64 rows, int row_floats, int adasum)
{
    const int lane = threadIdx.x % WARP;
    const i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    for (i64 row = (blockIdx.x * (i64)blockDim.x + threadIdx.x) / WARP; row < rows; row += warps) {
        const i64 at = row * row_floats;
        for (int copy = 0; count > 1 && copy < count; copy++)
            for (int d = lane; d < row_floats; d += WARP)
                copies[copy][at + d] -= base[at + d];
        for (int stride = 1; stride < count; stride *= 2) {
            for (int copy = 0; copy + stride < count; copy += 2 * stride) {
                float* left = copies[copy] + at;
                const float* right = copies[copy + stride] + at;
                double both = 0.0, left_norm = 0.0, right_norm = 0.0;
                for (int d = lane; adasum && d < row_floats; d += WARP) {
                    const double l = left[d], r = right[d];
                    both += l * r;
                    left_norm += l * l;
                    right_norm += r * r;
                }
                both = sum_over_warp(both);
                // Half of what they have in common, all of what is opposed: see numpy_kernels.
                both = both < 0.0 ? both : 0.5 * both;
                left_norm = sum_over_warp(left_norm);
                right_norm = sum_over_warp(right_norm);
                const double left_factor = left_norm != 0.0 ? 1.0 - both / left_norm : 1.0;
                const double right_factor = right_norm != 0.0 ? 1.0 - both / right_norm : 1.0;
                for (int d = lane; d < row_floats; d += WARP)
                    left[d] = adasum ? (float)(left_factor * left[d] + right_factor * right[d]) : left[d] + right[d];
            }
        }
        for (int d = lane; d < row_floats; d += WARP) {
            const float change = adasum ? copies[0][at + d] : copies[0][at + d] / (float)count;
            // With one copy nothing is added or scaled: base + (copy − base) need not be the copy's bits.
            const float merged = count > 1 ? base[at + d] + change : copies[0][at + d];
            base[at + d] = merged;
            for (int copy = 0; copy < count; copy++)
                copies[copy][at + d] = merged;
        }
    }
}
