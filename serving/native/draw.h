/* Drawing a token from a row of logits: temperature, then top-k, then top-p (Holtzman et al. 2020).
 *
 * The same order of operations as serving/sampling.py. Instead of ranking the whole vocabulary, only
 * tokens of probability (1 - top_p) / vocab or more are looked at: all the others together weigh less
 * than what top-p leaves out.
 */
#pragma once

#include <stdlib.h>

#include "pool.h"
#include "products.h"

typedef struct {
    double top_p, point; /* point: a uniform number in [0, 1) */
    float temperature;   /* 0: the likeliest token */
    int32_t top_k;       /* 0: all */
    int32_t token;       /* out; -1 if the logits are not finite, -2 if there was no memory */
    int32_t reserved;
} Draw;

typedef struct {
    float weight;
    int32_t token;
} Candidate;

static int likelier(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

/* The token where the running weight passes `point` of the whole. */
static int32_t invert(const Candidate *of, int count, double point) {
    double whole = 0, running = 0;
    for (int i = 0; i < count; i++) whole += of[i].weight;
    for (int i = 0; i < count; i++) {
        running += of[i].weight;
        if (running > point * whole) return of[i].token;
    }
    return of[count - 1].token;
}

/* Keep the likeliest: top_k at most, and of those the fewest that make up top_p. */
static int keep(Candidate *of, int count, double whole, const Draw *draw) {
    qsort(of, count, sizeof *of, likelier);
    if (draw->top_k && draw->top_k < count) count = draw->top_k;
    if (draw->top_k) {
        whole = 0;
        for (int i = 0; i < count; i++) whole += of[i].weight;
    }
    double before = 0;
    for (int i = 0; i < count; before += of[i++].weight)
        if (i && before >= draw->top_p * whole) return i;
    return count;
}

/* Weights e^((logit - highest) / temperature) and their sum; `highest` may be infinite. */
static double weigh(const float *logits, int vocab, float highest, float temperature, float *weights) {
    vec sums = {0}, scale = splat(1.0f / temperature);
    int i = 0;
    for (; i + LANES <= vocab; i += LANES) {
        vec weight = exponential((*(const vec_u *)(logits + i) - highest) * scale);
        *(vec_u *)(weights + i) = weight;
        sums += weight;
    }
    double sum = 0;
    for (int l = 0; l < LANES; l++) sum += sums[l];
    for (; i < vocab; i++) {
        weights[i] = exponential(splat((logits[i] - highest) / temperature))[0];
        sum += weights[i];
    }
    return sum;
}

static int32_t likeliest(const float *logits, int vocab) {
    int32_t best = 0;
    int finite = 1;
    for (int32_t i = 0; i < vocab; i++) {
        finite &= logits[i] == logits[i];
        if (logits[i] > logits[best]) best = i;
    }
    return finite && logits[best] - logits[best] == 0 ? best : -1;
}

static int32_t draw_one(const float *logits, int vocab, const Draw *draw) {
    int32_t best = likeliest(logits, vocab);
    if (best < 0 || draw->temperature == 0) return best;
    float *weights = malloc(vocab * (sizeof(float) + sizeof(Candidate)));
    if (!weights) return -2;
    Candidate *candidates = (Candidate *)(weights + vocab);
    double whole = weigh(logits, vocab, logits[best], draw->temperature, weights);
    float least = (float)((1 - draw->top_p) / vocab * whole);
    int count = 0;
    for (int32_t i = 0; i < vocab; i++)
        if (weights[i] >= least) candidates[count++] = (Candidate){weights[i], i};
    if (draw->top_k || draw->top_p < 1) count = keep(candidates, count, whole, draw);
    int32_t token = invert(candidates, count, draw->point);
    free(weights);
    return token;
}

typedef struct {
    const float *logits;
    long stride;
    int vocab;
    Draw *draws;
} Drawing;

static void draw_task(void *context, int task, int worker) {
    Drawing *d = context;
    (void)worker;
    d->draws[task].token = draw_one(d->logits + task * d->stride, d->vocab, d->draws + task);
}

/* Draw one token from each row.  logits (rows, stride), of which `vocab` columns count */
void draw_rows(const float *logits, long stride, int vocab, int rows, Draw *draws) {
    Drawing drawing = {logits, stride, vocab, draws};
    pthread_mutex_lock(&one_at_a_time);
    begin_work();
    run_tasks(draw_task, &drawing, rows);
    end_work();
    pthread_mutex_unlock(&one_at_a_time);
}
