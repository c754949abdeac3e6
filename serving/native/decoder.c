/* One forward pass of a decoder (Llama and its relatives) on the CPU, over a flat list of tokens.
 *
 * Every token of a pass names its row of the cache and its position there; prompts and single new
 * tokens of different rows go through together, without padding. Tokens are sorted by adapter, and
 * each group adds its own LoRA product. A token's result is bit for bit the same whatever else is in
 * the pass, whatever the number of threads: every sum runs over its inputs in one fixed order.
 *
 * Built twice from this file: with -DFLOAT32 weights, activations and cache are float32; without,
 * they are bfloat16 with float32 sums and a float32 residual stream.
 *
 * The cache of keys is a packed matrix with slots as outputs, that of values one with slots as inputs.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attention.h"
#include "draw.h"
#include "layout.h"
#include "linear.h"
#include "norm.h"
#include "pool.h"
#include "quantized.h"

static void logits_task(void *context, int task, int worker) {
    Work *w = context;
    (void)worker;
    const Model *m = w->model;
    long width = (long)(m->vocab + LANES - 1) / LANES * LANES;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels; i += 2) {
        int panels = w->panels - panel < 2 ? 1 : 2;
        multiply_input(w, 0, w->rows, &m->head, panel, panels,
                       w->pass->logits + (size_t)panel * LANES, width);
        panel += panels;
    }
}

static void run_layer(Work *w, int index) {
    const Model *m = w->model;
    const Layer *layer = w->layer = m->layer + index;
    int size = m->head_dim, attended = m->heads * size;
    w->index = index;
    normalize_all(w, QUERY);
    take_input(w, w->normed, m->hidden, w->pass->count, &layer->qkv);
    make_ranks(w, QUERY, 3);
    make_product(w, qkv_task, &layer->qkv, (m->heads + 2 * m->kv_heads) * size);
    run_tasks(place_task, w, (w->pass->count + 3) / 4);
    run_tasks(attend_task, w, w->pass->count * m->kv_heads);
    take_input(w, w->attended, attended, w->pass->count, &layer->out);
    make_ranks(w, OUT, 1);
    make_product(w, residual_task, &layer->out, m->hidden);
    normalize_all(w, GATE);
    take_input(w, w->normed, m->hidden, w->pass->count, &layer->gate_up);
    make_ranks(w, GATE, 2);
    make_product(w, gated_task, &layer->gate_up, 2 * m->inner);
    take_input(w, w->inner, m->inner, w->pass->count, &layer->down);
    make_ranks(w, DOWN, 1);
    make_product(w, residual_task, &layer->down, m->hidden);
}

static void run_head(Work *w) {
    const Model *m = w->model;
    float *buffer = (float *)w->scratch;
    for (int i = 0; i < w->pass->outputs; i++)
        norm_row(m, w->hidden + (size_t)w->pass->output[i] * m->hidden, m->norm_last,
                 w->normed + (size_t)i * m->hidden, buffer);
    take_input(w, w->normed, m->hidden, w->pass->outputs, &m->head);
    make_product(w, logits_task, &m->head, (m->vocab + LANES - 1) / LANES * LANES);
}

static int most_ranks_of(const Model *m, const Pass *pass) {
    int most = 0;
    for (int g = 0; g < pass->groups; g++)
        for (int i = 0; pass->adapter[g] && i < m->layers * MODULES; i++)
            if (pass->adapter[g][i].b && pass->adapter[g][i].ranks > most)
                most = pass->adapter[g][i].ranks;
    return most;
}

static size_t widest_of(const Model *m) {
    int attended = m->heads * m->head_dim, most = m->inner > m->hidden ? m->inner : m->hidden;
    return attended > most ? attended : most;
}

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int run_pass(const Model *m, const Pass *pass) {
    size_t tokens = pass->count, outputs = pass->outputs, most = tokens > outputs ? tokens : outputs;
    int heads_each = m->heads / m->kv_heads;
    Work w = {.model = m, .pass = pass, .most_ranks = most_ranks_of(m, pass)};
    size_t tile = most * 2 * LANES * sizeof(float);
    size_t attention = (size_t)heads_each * (m->slots * (sizeof(float) + sizeof(elem)) + 128);
    size_t row = (size_t)m->hidden * sizeof(float);
    w.scratch_size = rounded(tile > attention ? tile : attention);
    if (w.scratch_size < rounded(row)) w.scratch_size = rounded(row);
    size_t sizes[] = {tokens * m->hidden * sizeof(float),
                      most * m->hidden * sizeof(elem),
                      tokens * (m->heads + 2 * m->kv_heads) * m->head_dim * sizeof(float),
                      tokens * m->heads * m->head_dim * sizeof(elem),
                      tokens * m->heads * m->head_dim * sizeof(elem),
                      tokens * m->inner * sizeof(elem),
                      tokens * MODULES * w.most_ranks * sizeof(elem),
                      most * widest_of(m) * 2,
                      most * (widest_of(m) / CHUNK + 1) * sizeof(float),
                      most * (widest_of(m) / CHUNK + 1) * sizeof(float),
                      w.scratch_size * pool.threads};
    void **parts[] = {(void **)&w.hidden, (void **)&w.normed,   (void **)&w.qkv,
                      (void **)&w.query,  (void **)&w.attended, (void **)&w.inner,
                      (void **)&w.ranks,  (void **)&w.bytes,    (void **)&w.steps,
                      (void **)&w.totals, (void **)&w.scratch};
    size_t total = 0, at = 0;
    const int count = sizeof sizes / sizeof *sizes;
    for (int i = 0; i < count; i++) total += rounded(sizes[i]);
    char *memory = aligned_alloc(64, total);
    if (!memory) return -1;
    for (int i = 0; i < count; at += rounded(sizes[i]), i++) *parts[i] = memory + at;
    begin_work();
    for (size_t t = 0; t < tokens; t++)
        for (int i = 0; i < m->hidden; i++)
            w.hidden[t * m->hidden + i] =
                to_float(m->embedding[(size_t)pass->token[t] * m->hidden + i]) * m->embedding_scale;
    for (int i = 0; i < m->layers; i++) run_layer(&w, i);
    if (pass->outputs) run_head(&w);
    end_work();
    free(memory);
    return 0;
}

/* Run one pass and write the logits; returns 0, or -1 if there is no memory for it. */
int forward(const Model *m, const Pass *pass) {
    pthread_mutex_lock(&one_at_a_time);
    int failed = run_pass(m, pass);
    pthread_mutex_unlock(&one_at_a_time);
    return failed;
}

static size_t states(const Model *m, int count) {
    size_t pages = (count + PAGE - 1) / PAGE;
    return pages * m->layers * m->kv_heads * 2 * PAGE * m->head_dim * sizeof(elem);
}

/* Copy the states of the first `count` slots of one row over another's. */
void copy_row(const Model *m, int source, int target, int count) {
    memcpy(page_of(m, target, 0, 0, 0), page_of(m, source, 0, 0, 0), states(m, count));
}

/* Give back the memory of a row's slots beyond the first `count`, as far as whole pages go; what they
 * held is gone. */
void trim_row(const Model *m, int row, int count) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)page_of(m, row, 0, 0, 0) + states(m, count);
    uintptr_t to = (uintptr_t)page_of(m, row + 1, 0, 0, 0) / page * page;
    from = (from + page - 1) / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

/* Zero a row's first slots: what is not finite would reach its next owner through a hidden slot. */
void clear_row(const Model *m, int row, int count) {
    memset(page_of(m, row, 0, 0, 0), 0, states(m, count));
}

/* Pack a row-major (out, in) matrix into every `every`-th panel from `first` on. Rows beyond the
 * last whole panel, and inputs beyond `in` up to `padded_in`, must be zero in the target already. */
void pack(elem *target, const elem *source, int out, int in, int padded_in, int first, int every) {
    for (int n = 0; n < out; n += LANES) {
        elem *panel = target + (size_t)(first + n / LANES * every) * padded_in * LANES;
        int lanes = out - n < LANES ? out - n : LANES;
        for (int l = 0; l < lanes; l++) {
            const elem *from = source + (size_t)(n + l) * in;
            elem *to = panel + l * STEP;
            int k = 0;
            for (; k + STEP <= in; k += STEP) memcpy(to + k * LANES, from + k, STEP * sizeof(elem));
            if (k < in) to[k * LANES] = from[k];
        }
    }
}
