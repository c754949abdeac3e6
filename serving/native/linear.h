/* The linear layers of a pass, each with the adapters of its tokens. */
#pragma once

#include "layout.h"
#include "pool.h"
#include "quantized.h"

static const Pair *pair_of(const Work *w, int group, int module) {
    const Pair *adapter = w->pass->adapter[group];
    if (!adapter) return NULL;
    const Pair *pair = adapter + w->index * MODULES + module;
    return pair->b ? pair : NULL;
}

/* One task: ranks(module, group) = input times A. */
static void rank_task(void *context, int task, int worker) {
    Work *w = context;
    const Pass *pass = w->pass;
    int group = task / w->modules, module = w->first_module + task % w->modules;
    const Pair *pair = pair_of(w, group, module);
    if (!pair) return;
    int first = pass->group_start[group], count = pass->group_start[group + 1] - first;
    elem *out = w->ranks + ((size_t)module * pass->count + first) * w->most_ranks;
    float *sums = (float *)(w->scratch + worker * w->scratch_size); /* (count, 16) */
    for (int p = 0; p < pair->ranks / LANES; p++) {
        multiply_input(w, first, count, &pair->a, p, 1, sums, LANES);
        for (int r = 0; r < count; r++)
            store_elems(out + (size_t)r * w->most_ranks + p * LANES, *(vec *)(sums + r * LANES));
    }
}

static int adapted(const Work *w) {
    for (int g = 0; g < w->pass->groups; g++)
        if (w->pass->adapter[g]) return 1;
    return 0;
}

static void make_ranks(Work *w, int first_module, int modules) {
    w->first_module = first_module;
    w->modules = modules;
    if (adapted(w)) run_tasks(rank_task, w, w->pass->groups * modules);
}

/* Ask the memory for what add_adapters will read of a panel: its pieces lie far apart. */
INLINE void fetch_adapters(const Work *w, int module, int panel) {
    for (int g = 0; g < w->pass->groups; g++) {
        const Pair *pair = pair_of(w, g, module);
        if (!pair) continue;
        const char *b = (const char *)(pair->b + (size_t)panel * pair->ranks * LANES);
        for (size_t i = 0; i < pair->ranks * LANES * sizeof(elem); i += 64)
            __builtin_prefetch(b + i, 0, 3);
    }
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
    multiply_input(w, 0, w->rows, w->linear, panel, panels, sums, 2 * LANES);
    return sums;
}

INLINE vec bias_of(const Linear *linear, int panel) {
    return linear->bias ? *(const vec_u *)(linear->bias + panel * LANES) : (vec){0};
}

/* Which module a panel of the joined query, key and value matrix belongs to, and its first. */
INLINE int module_of(int panel, int queries, int keys) {
    return panel < queries ? QUERY : panel < queries + keys ? KEY : VALUE;
}

INLINE int first_of(int module, int queries, int keys) {
    return module == QUERY ? 0 : module == KEY ? queries : queries + keys;
}

static void qkv_task(void *context, int task, int worker) {
    Work *w = context;
    const Model *m = w->model;
    int queries = m->heads * m->head_dim / LANES, keys = m->kv_heads * m->head_dim / LANES;
    long width = (long)w->panels * LANES;
    for (int panel = task * w->per_task, i = 0; i < w->per_task && panel < w->panels; i += 2) {
        int panels = w->panels - panel < 2 ? 1 : 2;
        for (int p = 0; p < panels; p++) {
            int module = module_of(panel + p, queries, keys);
            fetch_adapters(w, module, panel + p - first_of(module, queries, keys));
        }
        float *sums = two_panels(w, panel, panels, worker);
        for (int p = 0; p < panels; p++, panel++) {
            int module = module_of(panel, queries, keys);
            int within = panel - first_of(module, queries, keys);
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
        for (int p = 0; p < panels; p++) fetch_adapters(w, w->first_module, panel + p);
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
        fetch_adapters(w, GATE, panel / 2);
        fetch_adapters(w, UP, panel / 2);
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
