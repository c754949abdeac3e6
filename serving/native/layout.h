/* What a model, an adapter and a pass look like: shared with library.py. */
#pragma once

#include "products.h"

#define PAGE 64 /* slots whose states lie together */

typedef struct {
    const elem *weight;     /* packed; NULL where there are bytes */
    const float *bias;      /* or NULL */
    const uint8_t *bytes;   /* packed as quantized.h says, or NULL */
    const uint16_t *scales; /* with bytes: (panels, in / 32, 2, 16) half precision, range and low */
    int32_t coarse;         /* whether one byte of its input will do */
    int32_t reserved;
} Linear;

typedef struct {
    const float *norm_attention, *norm_mlp; /* (hidden,) */
    const float *norm_query, *norm_key;     /* (head_dim,) or NULL */
    Linear qkv, out, gate_up, down;         /* gate and up alternate by panel */
    int32_t window;                         /* tokens a sliding layer sees back, 0: all */
    int32_t reserved;
} Layer;

typedef struct {
    int32_t layers, hidden, heads, kv_heads, head_dim, inner, vocab, slots, rows;
    int32_t gelu; /* 0: silu, 1: gelu by tanh */
    float epsilon, attention_scale, embedding_scale;
    int32_t reserved;
    const elem *embedding; /* (vocab, hidden), row-major */
    const float *norm_last;
    Linear head; /* (vocab, hidden) */
    const float *cosine, *sine; /* (slots, head_dim / 2) */
    const Layer *layer;
    elem *cache; /* (rows, slots / 64, layers, kv_heads, keys then values of 64 slots) */
} Model;

enum { QUERY, KEY, VALUE, OUT, GATE, UP, DOWN, MODULES };

typedef struct {
    Linear a;      /* (ranks, in) */
    const elem *b; /* packed (out, ranks); NULL where not adapted */
    int32_t ranks; /* a multiple of 16, padded with zeros */
    int32_t reserved;
} Pair;

typedef struct {
    int32_t count, groups, outputs, reserved;
    const int32_t *token, *row, *position; /* (count,) sorted by group */
    const int32_t *group_start;            /* (groups + 1,) */
    const Pair *const *adapter;            /* (groups,) of (layers * MODULES,), or NULL */
    const int32_t *output;                 /* (outputs,) which tokens' logits are wanted */
    float *logits;                         /* (outputs, vocab rounded up to 16) */
} Pass;

/* What the tasks of a pass work on. */
typedef struct {
    const Model *model;
    const Pass *pass;
    const Layer *layer;
    int index;
    float *hidden;   /* (count, hidden) residual stream */
    elem *normed;    /* (count, hidden) */
    float *qkv;      /* (count, heads + 2 kv_heads, head_dim) */
    elem *query;     /* (count, heads, head_dim) */
    elem *attended;  /* (count, heads, head_dim) */
    elem *inner;     /* (count, inner) */
    elem *ranks;     /* (MODULES, count, most_ranks) */
    int most_ranks;
    char *scratch;   /* one part for each thread */
    size_t scratch_size;
    /* the product being made */
    const Linear *linear;
    const elem *input; /* (rows, in) */
    int8_t *bytes;     /* the same as two bytes each, with a step and a total for each 32 */
    float *steps, *totals;
    int coarse, in, rows, panels, first_module, modules, per_task;
} Work;
