/* Numbers of one model, and products with packed matrices: the inner loops.
 *
 * A matrix is "packed" as panels of 16 outputs, each panel running over its inputs in pairs
 * (bfloat16) or singly (float32), 64 bytes a step: the order in which the products read it.
 */
#pragma once

#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define LANES 16
#define BLOCK 10 /* tokens whose sums stay in registers at once */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(64)));
typedef float vec_u __attribute__((vector_size(64), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(64)));

#ifdef FLOAT32
typedef float elem;
#define STEP 1
#else
typedef uint16_t elem;
#define STEP 2
#endif

INLINE elem to_elem(float x) {
#ifdef FLOAT32
    return x;
#else
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16); /* to nearest, ties to even */
#endif
}

INLINE float to_float(elem x) {
#ifdef FLOAT32
    return x;
#else
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
#endif
}

typedef uint16_t half_u __attribute__((vector_size(32), aligned(2)));

INLINE void store_elems(elem *out, vec x) {
#if defined(FLOAT32)
    *(vec_u *)out = x;
#elif defined(__AVX512BF16__)
    *(half_u *)out = (half_u)_mm512_cvtneps_pbh((__m512)x);
#else
    for (int l = 0; l < LANES; l++) out[l] = to_elem(x[l]);
#endif
}

INLINE vec splat(float x) { return (vec){0} + x; }

INLINE vec choose(ivec where, vec a, vec b) { return (vec)(((ivec)a & where) | ((ivec)b & ~where)); }

/* e^x by 2^n * 2^f with a polynomial for |f| <= 1/2; relative error about 1e-7. */
INLINE vec exponential(vec x) {
    vec low = splat(-87.0f), high = splat(88.0f);
    x = choose(x < low, low, x);
    x = choose(x > high, high, x);
    vec t = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to whole */
    vec whole = t - 12582912.0f;
    vec f = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
    vec p = splat(1.9875691500e-4f);
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    ivec n = __builtin_convertvector(whole, ivec);
    return p * (vec)((n + 127) << 23);
}

INLINE vec activate(vec x, int gelu) {
    vec u = gelu ? 1.5957691216f * (x + 0.044715f * x * x * x) : x; /* gelu(x) = x sigmoid(u) */
    return x / (1.0f + exponential(-u));
}

INLINE vec multiply(vec sum, const elem *x, const elem *w) {
#if defined(FLOAT32)
    return sum + *x * *(const vec *)w;
#elif defined(__AVX512BF16__)
    int32_t pair;
    memcpy(&pair, x, 4);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair),
                                 (__m512bh)_mm512_load_si512(w));
#else
    ivec pairs = *(const ivec *)w;
    sum += to_float(x[0]) * (vec)(pairs << 16);
    return sum + to_float(x[1]) * (vec)(pairs & (int32_t)0xffff0000);
#endif
}

/* sums(rows, panels * 16) = (or +=) x(rows, in) times `panels` packed panels; all counts constant */
INLINE void product(const int rows, const int panels, const elem *x, long ldx, const elem *w,
                    long panel_stride, int in, float *sums, long lds, int add) {
    vec sum[BLOCK][2];
#pragma GCC unroll 10
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++)
            sum[r][p] = add ? *(const vec_u *)(sums + r * lds + p * LANES) : (vec){0};
    for (int k = 0; k < in; k += STEP) {
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            __builtin_prefetch(w + (p + panels) * panel_stride + k * LANES, 0, 2);
#pragma GCC unroll 10
            for (int r = 0; r < rows; r++)
                sum[r][p] = multiply(sum[r][p], x + r * ldx + k, w + p * panel_stride + k * LANES);
        }
    }
#pragma GCC unroll 10
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) *(vec_u *)(sums + r * lds + p * LANES) = sum[r][p];
}

#define ROWS(n) \
    case n: \
        if (panels == 2) product(n, 2, x, ldx, w, panel_stride, in, sums, lds, add); \
        else product(n, 1, x, ldx, w, panel_stride, in, sums, lds, add); \
        break;

static void block(int rows, int panels, const elem *x, long ldx, const elem *w, long panel_stride,
                  int in, float *sums, long lds, int add) {
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10)
    }
}

/* The same for any number of rows, in blocks of nearly equal size. */
static void multiply_rows(int rows, int panels, const elem *x, long ldx, const elem *w,
                          long panel_stride, int in, float *sums, long lds, int add) {
    int blocks = (rows + BLOCK - 1) / BLOCK;
    for (int i = 0, first = 0; i < blocks; i++) {
        int size = (rows - first) / (blocks - i);
        block(size, panels, x + first * ldx, ldx, w, panel_stride, in, sums + first * lds, lds, add);
        first += size;
    }
}
