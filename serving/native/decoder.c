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

#include "draw.h"
#include "pool.h"
#include "products.h"

#define PAGE 64 /* slots whose states lie together */

/* ---- layout shared with library.py ---- */

typedef struct {
    const elem *weight; /* packed */
    const float *bias;  /* or NULL */
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
    const elem *head; /* packed (vocab, hidden) */
    const float *cosine, *sine; /* (slots, head_dim / 2) */
    const Layer *layer;
    elem *cache; /* (rows, slots / 64, layers, kv_heads, keys then values of 64 slots) */
} Model;

enum { QUERY, KEY, VALUE, OUT, GATE, UP, DOWN, MODULES };

typedef struct {
    const elem *a, *b; /* packed (ranks, in) and (out, ranks); NULL where not adapted */
    int32_t ranks;     /* a multiple of 16, padded with zeros */
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

/* ---- the pass ---- */

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
    const elem *input;
    int in, panels, first_module, modules, per_task;
} Work;

enum { STORE, ADD, GATED };

static const Pair *pair_of(const Work *w, int group, int module) {
    const Pair *adapter = w->pass->adapter[group];
    if (!adapter) return NULL;
    const Pair *pair = adapter + w->index * MODULES + module;
    return pair->a ? pair : NULL;
}

/* One task: ranks(module, group) = input times A. */
static void rank_task(void *context, int task, int worker) {
    Work *w = context;
    (void)worker;
    const Pass *pass = w->pass;
    int group = task / w->modules, module = w->first_module + task % w->modules;
    const Pair *pair = pair_of(w, group, module);
    if (!pair) return;
    int first = pass->group_start[group], count = pass->group_start[group + 1] - first;
    elem *out = w->ranks + ((size_t)module * pass->count + first) * w->most_ranks;
    float sums[BLOCK * LANES];
    for (int at = 0; at < count; at += BLOCK) {
        int rows = count - at < BLOCK ? count - at : BLOCK;
        for (int p = 0; p < pair->ranks / LANES; p++) {
            block(rows, 1, w->input + (size_t)(first + at) * w->in, w->in,
                  pair->a + (size_t)p * w->in * LANES, 0, w->in, sums, LANES, 0);
            for (int r = 0; r < rows; r++)
                store_elems(out + (size_t)(at + r) * w->most_ranks + p * LANES,
                            *(vec_u *)(sums + r * LANES));
        }
    }
}

static int adapted(const Work *w) {
    for (int g = 0; g < w->pass->groups; g++)
        if (w->pass->adapter[g]) return 1;
    return 0;
}

static void make_ranks(Work *w, const elem *input, int in, int first_module, int modules) {
    w->input = input;
    w->in = in;
    w->first_module = first_module;
    w->modules = modules;
    if (adapted(w)) run_tasks(rank_task, w, w->pass->groups * modules);
}

/* Add every group's B times its ranks to one panel's sums.  sums (count, lds) */
static void add_adapters(const Work *w, int module, int panel, float *sums, long lds) {
    const Pass *pass = w->pass;
    for (int g = 0; g < pass->groups; g++) {
        const Pair *pair = pair_of(w, g, module);
        if (!pair) continue;
        int first = pass->group_start[g], count = pass->group_start[g + 1] - first;
        multiply_rows(count, 1, w->ranks + ((size_t)module * pass->count + first) * w->most_ranks,
                      w->most_ranks, pair->b + (size_t)panel * pair->ranks * LANES, 0, pair->ranks,
                      sums + first * lds, lds, 1);
    }
}

/* Two panels of base and adapters into this thread's scratch.  (count, 32) */
static float *two_panels(Work *w, int panel, int panels, int worker) {
    float *sums = (float *)(w->scratch + worker * w->scratch_size);
    long stride = (long)w->in * LANES;
    multiply_rows(w->pass->count, panels, w->input, w->in, w->linear->weight + panel * stride,
                  stride, w->in, sums, 2 * LANES, 0);
    return sums;
}

INLINE vec bias_of(const Linear *linear, int panel) {
    return linear->bias ? *(const vec_u *)(linear->bias + panel * LANES) : (vec){0};
}

static void qkv_task(void *context, int task, int worker) {
    Work *w = context;
    const Model *m = w->model;
    int queries = m->heads * m->head_dim / LANES, keys = m->kv_heads * m->head_dim / LANES;
    long width = (long)w->panels * LANES;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels; i += 2) {
        int panels = w->panels - panel < 2 ? 1 : 2;
        float *sums = two_panels(w, panel, panels, worker);
        for (int p = 0; p < panels; p++, panel++) {
            int module = panel < queries ? QUERY : panel < queries + keys ? KEY : VALUE;
            int within = panel - (module == QUERY ? 0 : module == KEY ? queries : queries + keys);
            add_adapters(w, module, within, sums + p * LANES, 2 * LANES);
            vec bias = bias_of(w->linear, panel);
            for (int t = 0; t < w->pass->count; t++)
                *(vec_u *)(w->qkv + t * width + panel * LANES) =
                    *(vec *)(sums + (2 * t + p) * LANES) + bias;
        }
    }
}

/* Attention's output and the second half of the MLP: added to the residual stream. */
static void residual_task(void *context, int task, int worker) {
    Work *w = context;
    int hidden = w->model->hidden;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels; i += 2) {
        int panels = w->panels - panel < 2 ? 1 : 2;
        float *sums = two_panels(w, panel, panels, worker);
        for (int p = 0; p < panels; p++, panel++) {
            add_adapters(w, w->first_module, panel, sums + p * LANES, 2 * LANES);
            vec bias = bias_of(w->linear, panel);
            for (int t = 0; t < w->pass->count; t++)
                *(vec_u *)(w->hidden + (size_t)t * hidden + panel * LANES) +=
                    *(vec *)(sums + (2 * t + p) * LANES) + bias;
        }
    }
}

static void gated_task(void *context, int task, int worker) {
    Work *w = context;
    const Model *m = w->model;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels;
         i += 2, panel += 2) {
        float *sums = two_panels(w, panel, 2, worker);
        add_adapters(w, GATE, panel / 2, sums, 2 * LANES);
        add_adapters(w, UP, panel / 2, sums + LANES, 2 * LANES);
        vec gate_bias = bias_of(w->linear, panel), up_bias = bias_of(w->linear, panel + 1);
        for (int t = 0; t < w->pass->count; t++) {
            vec gate = *(vec *)(sums + 2 * t * LANES) + gate_bias;
            vec up = *(vec *)(sums + (2 * t + 1) * LANES) + up_bias;
            store_elems(w->inner + (size_t)t * m->inner + panel / 2 * LANES,
                        activate(gate, m->gelu) * up);
        }
    }
}

static void make_product(Work *w, Task *task, const Linear *linear, int out) {
    w->linear = linear;
    w->panels = out / LANES;
    int pairs = (w->panels + 1) / 2, wanted = 4 * pool.threads;
    int pairs_each = pairs <= wanted ? 1 : (pairs + wanted - 1) / wanted;
    w->per_task = 2 * pairs_each;
    run_tasks(task, w, (pairs + pairs_each - 1) / pairs_each);
}

/* RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + epsilon) * weight. Any width. */
static void normalize(const float *x, const float *weight, int width, float epsilon, float *out) {
    vec sums = {0};
    int i = 0;
    for (; i + LANES <= width; i += LANES) {
        vec v = *(const vec_u *)(x + i);
        sums += v * v;
    }
    float sum = 0;
    for (int l = 0; l < LANES; l++) sum += sums[l];
    for (; i < width; i++) sum += x[i] * x[i];
    float scale = 1.0f / __builtin_sqrtf(sum / width + epsilon);
    for (i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

static void norm_row(const Model *m, const float *x, const float *weight, elem *out, float *buffer) {
    normalize(x, weight, m->hidden, m->epsilon, buffer);
    for (int i = 0; i < m->hidden; i++) out[i] = to_elem(buffer[i]);
}

static void norm_task(void *context, int task, int worker) {
    Work *w = context;
    int hidden = w->model->hidden, last = (task + 1) * 8;
    if (last > w->pass->count) last = w->pass->count;
    float *buffer = (float *)(w->scratch + worker * w->scratch_size);
    const float *weight = w->first_module == QUERY ? w->layer->norm_attention : w->layer->norm_mlp;
    for (int t = task * 8; t < last; t++)
        norm_row(w->model, w->hidden + (size_t)t * hidden, weight,
                 w->normed + (size_t)t * hidden, buffer);
}

static void normalize_all(Work *w, int module) {
    w->first_module = module;
    run_tasks(norm_task, w, (w->pass->count + 7) / 8);
}

/* Turn one head by its position (Su et al. 2021), halves as in transformers. */
static void rotate(const Model *m, float *head, int position) {
    int half = m->head_dim / 2;
    const float *cosine = m->cosine + (size_t)position * half;
    const float *sine = m->sine + (size_t)position * half;
    for (int i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + half] = b * cosine[i] + a * sine[i];
    }
}

/* Keys of a page of one row and head; the values follow after PAGE * head_dim. */
INLINE elem *page_of(const Model *m, int row, int slot, int layer, int kv_head) {
    size_t page = (size_t)row * (m->slots / PAGE) + slot / PAGE;
    return m->cache + ((page * m->layers + layer) * m->kv_heads + kv_head) * 2 * PAGE * m->head_dim;
}

/* Queries to `query`, keys and values of a token into the cache. */
static void place_task(void *context, int task, int worker) {
    Work *w = context;
    (void)worker;
    const Model *m = w->model;
    const Pass *pass = w->pass;
    int size = m->head_dim, last = (task + 1) * 4;
    if (last > pass->count) last = pass->count;
    for (int t = task * 4; t < last; t++) {
        float *head = w->qkv + (size_t)t * (m->heads + 2 * m->kv_heads) * size;
        int position = pass->position[t], slot = position % PAGE;
        for (int h = 0; h < m->heads; h++, head += size) {
            if (w->layer->norm_query)
                normalize(head, w->layer->norm_query, size, m->epsilon, head);
            rotate(m, head, position);
            elem *query = w->query + ((size_t)t * m->heads + h) * size;
            for (int i = 0; i < size; i++) query[i] = to_elem(head[i] * m->attention_scale);
        }
        for (int h = 0; h < m->kv_heads; h++, head += size) {
            if (w->layer->norm_key) normalize(head, w->layer->norm_key, size, m->epsilon, head);
            rotate(m, head, position);
            elem *keys = page_of(m, pass->row[t], position, w->index, h);
            keys += slot / LANES * LANES * size;
            for (int i = 0; i < size; i++)
                keys[i / STEP * STEP * LANES + slot % LANES * STEP + i % STEP] =
                    to_elem(head[i]);
        }
        for (int h = 0; h < m->kv_heads; h++, head += size) {
            elem *values = page_of(m, pass->row[t], position, w->index, h) + PAGE * size;
            for (int i = 0; i < size; i++)
                values[i / LANES * LANES * PAGE + slot / STEP * STEP * LANES + i % LANES * STEP +
                       slot % STEP] = to_elem(head[i]);
        }
    }
}

/* One token against one key-value head: the query heads that share it, over all slots it sees. */
static void attend_task(void *context, int task, int worker) {
    Work *w = context;
    const Model *m = w->model;
    const Pass *pass = w->pass;
    int t = task / m->kv_heads, kv_head = task % m->kv_heads, size = m->head_dim;
    int heads = m->heads / m->kv_heads, position = pass->position[t];
    int begin = w->layer->window && position >= w->layer->window ? position - w->layer->window + 1 : 0;
    int from = begin / PAGE * PAGE, count = (position - from) / LANES * LANES + LANES;
    float *scores = (float *)(w->scratch + worker * w->scratch_size); /* (heads, slots) */
    elem *shares = (elem *)(scores + (size_t)heads * m->slots);       /* (heads, slots) */
    float *sums = (float *)(shares + (size_t)heads * m->slots);       /* (heads, 32) */
    size_t at = ((size_t)t * m->heads + (size_t)kv_head * heads) * size;
    for (int s = 0; s < count; s += 2 * LANES)
        multiply_rows(heads, count - s > LANES ? 2 : 1, w->query + at, size,
                      page_of(m, pass->row[t], from + s, w->index, kv_head) + s % PAGE * size,
                      (long)size * LANES, size, scores + s, m->slots, 0);
    float scale[heads];
    for (int h = 0; h < heads; h++) {
        float *score = scores + (size_t)h * m->slots;
        elem *share = shares + (size_t)h * m->slots;
        for (int s = 0; s < begin - from; s++) score[s] = -__builtin_inff();
        for (int s = position - from + 1; s < count; s++) score[s] = -__builtin_inff();
        vec most = splat(-__builtin_inff());
        for (int s = 0; s < count; s += LANES) {
            vec v = *(vec_u *)(score + s);
            most = choose(v > most, v, most);
        }
        float best = most[0];
        for (int l = 1; l < LANES; l++) best = most[l] > best ? most[l] : best;
        vec total = {0};
        for (int s = 0; s < count; s += LANES) {
            vec v = *(vec_u *)(score + s), hidden = splat(-__builtin_inff());
            vec e = exponential(v - best);
            e = choose(v == hidden, (vec){0}, e);
            total += e;
            store_elems(share + s, e);
        }
        float sum = 0;
        for (int l = 0; l < LANES; l++) sum += total[l];
        scale[h] = 1.0f / sum;
    }
    for (int panel = 0, panels; panel < size / LANES; panel += panels) {
        panels = size / LANES - panel < 2 ? 1 : 2;
        for (int s = 0; s < count; s += PAGE)
            multiply_rows(heads, panels, shares + s, m->slots,
                          page_of(m, pass->row[t], from + s, w->index, kv_head) + PAGE * size +
                              panel * PAGE * LANES,
                          PAGE * LANES, count - s < PAGE ? count - s : PAGE, sums, 2 * LANES, s > 0);
        for (int h = 0; h < heads; h++)
            for (int p = 0; p < panels; p++)
                store_elems(w->attended + at + (size_t)h * size + (panel + p) * LANES,
                            *(vec_u *)(sums + (2 * h + p) * LANES) * scale[h]);
    }
}

static void logits_task(void *context, int task, int worker) {
    Work *w = context;
    (void)worker;
    const Model *m = w->model;
    long width = (long)(m->vocab + LANES - 1) / LANES * LANES, stride = (long)m->hidden * LANES;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels; i += 2) {
        int panels = w->panels - panel < 2 ? 1 : 2;
        multiply_rows(w->pass->outputs, panels, w->normed, m->hidden, m->head + panel * stride,
                      stride, m->hidden, w->pass->logits + (size_t)panel * LANES, width, 0);
        panel += panels;
    }
}

static void run_layer(Work *w, int index) {
    const Model *m = w->model;
    const Layer *layer = w->layer = m->layer + index;
    int size = m->head_dim, attended = m->heads * size;
    w->index = index;
    normalize_all(w, QUERY);
    make_ranks(w, w->normed, m->hidden, QUERY, 3);
    make_product(w, qkv_task, &layer->qkv, (m->heads + 2 * m->kv_heads) * size);
    run_tasks(place_task, w, (w->pass->count + 3) / 4);
    run_tasks(attend_task, w, w->pass->count * m->kv_heads);
    make_ranks(w, w->attended, attended, OUT, 1);
    make_product(w, residual_task, &layer->out, m->hidden);
    normalize_all(w, GATE);
    make_ranks(w, w->normed, m->hidden, GATE, 2);
    make_product(w, gated_task, &layer->gate_up, 2 * m->inner);
    make_ranks(w, w->inner, m->inner, DOWN, 1);
    make_product(w, residual_task, &layer->down, m->hidden);
}

static void run_head(Work *w) {
    const Model *m = w->model;
    float *buffer = (float *)w->scratch;
    for (int i = 0; i < w->pass->outputs; i++)
        norm_row(m, w->hidden + (size_t)w->pass->output[i] * m->hidden, m->norm_last,
                 w->normed + (size_t)i * m->hidden, buffer);
    make_product(w, logits_task, NULL, (m->vocab + LANES - 1) / LANES * LANES);
}

static int most_ranks_of(const Model *m, const Pass *pass) {
    int most = 0;
    for (int g = 0; g < pass->groups; g++)
        for (int i = 0; pass->adapter[g] && i < m->layers * MODULES; i++)
            if (pass->adapter[g][i].a && pass->adapter[g][i].ranks > most)
                most = pass->adapter[g][i].ranks;
    return most;
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
                      w.scratch_size * pool.threads};
    void **parts[] = {(void **)&w.hidden, (void **)&w.normed,   (void **)&w.qkv,
                      (void **)&w.query,  (void **)&w.attended, (void **)&w.inner,
                      (void **)&w.ranks,  (void **)&w.scratch};
    size_t total = 0, at = 0;
    for (int i = 0; i < 8; i++) total += rounded(sizes[i]);
    char *memory = aligned_alloc(64, total);
    if (!memory) return -1;
    for (int i = 0; i < 8; at += rounded(sizes[i]), i++) *parts[i] = memory + at;
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

/* Zero a row's first slots: what is not finite would reach its next owner through a hidden slot. */
void clear_row(const Model *m, int row, int count) {
    memset(page_of(m, row, 0, 0, 0), 0, states(m, count));
}

/* Pack a row-major (out, in) matrix into every `every`-th panel from `first` on. Rows beyond the
 * last whole panel, and inputs beyond `in` up to `padded_in`, must be zero in the target already. */
void pack(elem *target, const elem *source, int out, int in, int padded_in, int first, int every) {
    for (int n = 0; n < out; n++) {
        elem *panel = target + (size_t)(first + n / LANES * every) * padded_in * LANES;
        for (int k = 0; k < in; k++)
            panel[k / STEP * STEP * LANES + n % LANES * STEP + k % STEP] = source[(size_t)n * in + k];
    }
}
