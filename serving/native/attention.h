/* Positions, the cache of keys and values, and attention over it. */
#pragma once

#include "layout.h"
#include "norm.h"

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
