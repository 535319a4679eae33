// What the host wants to know about a slice of the stream before it is trained: whether it is valid, and which rows it reads.

// Checks the spans of the targets [start, stop) of a stream of `length` rows, and reports which rows they reach.
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

// Checks the word ids of the rows that check_spans found. Launched after it on the same CUDA stream.
extern "C" __global__ void check_words(const int* tokens, int vocab_size, SliceReport* report)
{
    if (report->bad_span != ~0ull)
        return;
    const i64 last = report->last;
    for (i64 i = report->first + blockIdx.x * (i64)blockDim.x + threadIdx.x; i < last; i += (i64)gridDim.x * blockDim.x)
        if ((unsigned)tokens[i] >= (unsigned)vocab_size)
            atomicMin(&report->bad_word, (u64)i);
}
