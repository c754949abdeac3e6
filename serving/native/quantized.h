/* Products with 8-bit weights (VNNI): four multiplications a lane and instruction.
 *
 * Weights are cut into chunks of 32 inputs: w = low + range * byte / 255, `low` and `range` in half
 * precision for each output and chunk. Weights that were on 16 even levels (as in a Q4_1 file) stay
 * what they were. Activations have 15 bits, a step for each chunk: x = step * (128 * high + low byte),
 * so the products lose next to nothing of them; where that matters least (`coarse` layers) one byte,
 * x = step * byte. Sums within a chunk are exact integers, and chunks are
 * added in a fixed order: a token's result is the same bits in any company here too.
 *
 * Compiled where the processor has the instructions; QUANTIZED says so.
 */
#pragma once

#include "layout.h"
#include "pool.h"

#define CHUNK 32    /* inputs that share a step */
#define BYTE_ROWS 6 /* tokens whose sums stay in registers at once */
#define TOGETHER 8  /* tokens a task turns into bytes */
#define AHEAD 4096  /* bytes of weights asked of the memory in advance */

#if defined(__AVX512VNNI__) && defined(__AVX512F__) && !defined(FLOAT32)
#define QUANTIZED 1
#include <immintrin.h>

/* One chunk of activations: 32 high bytes, 32 low bytes, the step / 255, and what they add up to. */
INLINE void to_bytes(const int coarse, const elem *x, int8_t *bytes, float *step, float *total) {
    vec part[CHUNK / LANES], most = {0};
    for (int i = 0; i < CHUNK / LANES; i++) {
        ivec bits = __builtin_convertvector(*(const half_u *)(x + i * LANES), ivec) << 16;
        part[i] = (vec)bits;
        vec size = (vec)(bits & 0x7fffffff);
        most = choose(size > most, size, most);
    }
    float largest = _mm512_reduce_max_ps((__m512)most);
    const float levels = coarse ? 127 : 127 * 128;
    vec scale = splat(largest > 0 ? levels / largest : 0.0f);
    ivec sum = {0};
    for (int i = 0; i < CHUNK / LANES; i++) {
        ivec whole = (ivec)_mm512_cvtps_epi32((__m512)(part[i] * scale));
        ivec high = coarse ? whole : (whole + 64) >> 7, low = whole - (high << 7); /* -64 to 63 */
        sum += whole;
        _mm_storeu_si128((__m128i *)(bytes + i * LANES), _mm512_cvtepi32_epi8((__m512i)high));
        if (!coarse)
            _mm_storeu_si128((__m128i *)(bytes + CHUNK + i * LANES),
                             _mm512_cvtepi32_epi8((__m512i)low));
    }
    float each = largest / levels;
    *step = each / 255;
    *total = each * (float)_mm512_reduce_add_epi32((__m512i)sum);
}

static void bytes_task(void *context, int task, int worker) {
    Work *w = context;
    (void)worker;
    int chunks = w->in / CHUNK, last = (task + 1) * TOGETHER;
    if (last > w->rows) last = w->rows;
    for (int t = task * TOGETHER; t < last; t++)
        for (int c = 0; c < chunks; c++) {
            size_t at = (size_t)t * chunks + c;
            const elem *x = w->input + at * CHUNK;
            int8_t *bytes = w->bytes + at * 2 * CHUNK;
            if (w->coarse) to_bytes(1, x, bytes, w->steps + at, w->totals + at);
            else to_bytes(0, x, bytes, w->steps + at, w->totals + at);
        }
}

INLINE vec halves(const uint16_t *at) {
    return (vec)_mm512_cvtph_ps(_mm256_load_si256((const __m256i *)at));
}

INLINE __m512i four_bytes(const int8_t *at) {
    int32_t four;
    memcpy(&four, at, 4);
    return _mm512_set1_epi32(four);
}

/* sums(rows, panels * 16) = x(rows, in) times `panels` panels of bytes; rows and panels constant */
INLINE void byte_product(const int coarse, const int rows, const int panels, const Work *w,
                         int first, const Linear *linear, int panel, float *sums, long lds) {
    int in = w->in, chunks = in / CHUNK;
    const uint8_t *weights = linear->bytes + (size_t)panel * in * LANES;
    const uint16_t *scales = linear->scales + (size_t)panel * chunks * 2 * LANES;
    const int8_t *x = w->bytes + (size_t)first * in * 2;
    const float *steps = w->steps + (size_t)first * chunks;
    const float *totals = w->totals + (size_t)first * chunks;
    vec sum[BYTE_ROWS][2] = {{{0}}};
    for (int c = 0; c < chunks; c++) {
        __m512i dot[BYTE_ROWS][2];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++) dot[r][p] = _mm512_setzero_si512();
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
            for (int k = 0; k < CHUNK; k += 4)
#pragma GCC unroll 2
                for (int p = 0; p < panels; p++) {
                    const uint8_t *at = weights + ((size_t)p * in + c * CHUNK + k) * LANES;
                    if (!half) __builtin_prefetch(at + AHEAD, 0, 3);
                    __m512i weight = _mm512_load_si512(at);
#pragma GCC unroll 6
                    for (int r = 0; r < rows; r++)
                        dot[r][p] = _mm512_dpbusd_epi32(
                            dot[r][p], weight,
                            four_bytes(x + ((size_t)r * chunks + c) * 2 * CHUNK + half * CHUNK + k));
                }
            if (half || coarse) break;
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int p = 0; p < panels; p++) dot[r][p] = _mm512_slli_epi32(dot[r][p], 7);
        }
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            const uint16_t *scale = scales + ((size_t)p * chunks + c) * 2 * LANES;
            vec range = halves(scale), low = halves(scale + LANES);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                sum[r][p] += low * totals[r * chunks + c];
                sum[r][p] += (vec)_mm512_cvtepi32_ps(dot[r][p]) * (range * steps[r * chunks + c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) *(vec_u *)(sums + r * lds + p * LANES) = sum[r][p];
}

#define BYTES(n) \
    case n: \
        if (w->coarse && panels == 2) byte_product(1, n, 2, w, first, linear, panel, sums, lds); \
        else if (w->coarse) byte_product(1, n, 1, w, first, linear, panel, sums, lds); \
        else if (panels == 2) byte_product(0, n, 2, w, first, linear, panel, sums, lds); \
        else byte_product(0, n, 1, w, first, linear, panel, sums, lds); \
        break;

static void byte_block(int rows, int panels, const Work *w, int first, const Linear *linear,
                       int panel, float *sums, long lds) {
    switch (rows) { BYTES(1) BYTES(2) BYTES(3) BYTES(4) BYTES(5) BYTES(6) }
}
#else
#define QUANTIZED 0
#endif

/* Whether this build multiplies bytes. */
int quantized(void) { return QUANTIZED; }

/* Say what the next products read: `rows` rows of `in` numbers, as bytes too where weights are. */
static void take_input(Work *w, const elem *input, int in, int rows, const Linear *linear) {
    w->input = input;
    w->in = in;
    w->rows = rows;
    w->coarse = linear->coarse;
#if QUANTIZED
    if (linear->bytes) run_tasks(bytes_task, w, (rows + TOGETHER - 1) / TOGETHER);
#else
    (void)linear;
#endif
}

/* sums(rows, panels * 16) = rows of the input times one or two panels of a matrix */
static void multiply_input(const Work *w, int first, int rows, const Linear *linear, int panel,
                           int panels, float *sums, long lds) {
#if QUANTIZED
    if (linear->bytes) {
        int blocks = (rows + BYTE_ROWS - 1) / BYTE_ROWS;
        for (int i = 0, done = 0; i < blocks; i++) {
            int size = (rows - done) / (blocks - i);
            byte_block(size, panels, w, first + done, linear, panel, sums + done * lds, lds);
            done += size;
        }
        return;
    }
#endif
    long stride = (long)w->in * LANES;
    multiply_rows(rows, panels, w->input + (size_t)first * w->in, w->in,
                  linear->weight + panel * stride, stride, w->in, sums, lds, 0);
}

#if QUANTIZED
static uint16_t to_half(float x) { return _cvtss_sh(x, 0); }
static float from_half(uint16_t x) { return _cvtsh_ss(x); }

/* One output's chunk: its bytes, four by four in the panel, its range and its lowest value. */
static void chunk_to_bytes(const elem *from, uint8_t *panel, uint16_t *scales) {
    vec part[CHUNK / LANES], least, most;
    for (int i = 0; i < CHUNK / LANES; i++) {
        part[i] = (vec)(__builtin_convertvector(*(const half_u *)(from + i * LANES), ivec) << 16);
        least = i ? choose(part[i] < least, part[i], least) : part[i];
        most = i ? choose(part[i] > most, part[i], most) : part[i];
    }
    scales[LANES] = to_half(_mm512_reduce_min_ps((__m512)least));
    float low = from_half(scales[LANES]);
    scales[0] = to_half(_mm512_reduce_max_ps((__m512)most) - low);
    float range = from_half(scales[0]);
    vec scale = splat(range > 0 ? 255 / range : 0);
    uint8_t levels[CHUNK];
    for (int i = 0; i < CHUNK / LANES; i++) {
        __m512i level = _mm512_cvtps_epi32((__m512)((part[i] - low) * scale));
        level = _mm512_max_epi32(level, _mm512_setzero_si512());
        _mm_storeu_si128((__m128i *)(levels + i * LANES), _mm512_cvtusepi32_epi8(level));
    }
    for (int i = 0; i < CHUNK; i += 4) memcpy(panel + i * LANES, levels + i, 4);
}
#endif

/* Turn a row-major (out, in) matrix into bytes and scales, into every `every`-th panel from `first`.
 * `in` is a multiple of 32; panels' lanes beyond `out` must be zero in the target already. */
void pack_bytes(uint8_t *bytes, uint16_t *scales, const elem *source, int out, int in, int first,
                int every) {
#if QUANTIZED
    size_t chunks = in / CHUNK;
    for (int n = 0; n < out; n++)
        for (size_t c = 0; c < chunks; c++) {
            size_t at = (first + (size_t)(n / LANES) * every) * chunks + c;
            chunk_to_bytes(source + (size_t)n * in + c * CHUNK,
                           bytes + at * CHUNK * LANES + n % LANES * 4,
                           scales + at * 2 * LANES + n % LANES);
        }
#endif
}
