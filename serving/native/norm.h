/* RMSNorm of the residual stream and of heads. */
#pragma once

#include "layout.h"
#include "pool.h"

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
