/* A pool of threads that share a row of tasks.
 *
 * Tasks are taken one at a time, so a thread that the machine has put aside holds up nobody unless
 * it is in the middle of a task: what is left over is done by the others.
 */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#define MAX_THREADS 64
#define ASIDE_US 300 /* between two looks at whether a lent core is back */

typedef void Task(void *context, int task, int worker);

static struct {
    int threads;
    pthread_t thread[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int busy, leaving, lent;
    atomic_uint_fast64_t ticket; /* generation << 32 | next task */
    atomic_int finished;
    Task *task;
    void *context;
    int tasks;
} pool = {.threads = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void relax(int spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if ((spins & 1023) == 1023) sched_yield();
}

/* Whether a thread's core is somebody else's for a while. The caller of a pass always works. */
static inline int stands_aside(int worker) {
    return worker && worker >= pool.threads - atomic_load(&pool.lent);
}

/* Take tasks of the present generation until none is left. A ticket is only taken if nothing has
 * changed since the job was read, so a thread that slept through a job cannot disturb the next. */
static void take_tasks(int worker) {
    uint_fast64_t ticket = atomic_load(&pool.ticket);
    while (!stands_aside(worker)) {
        Task *task = pool.task;
        void *context = pool.context;
        int tasks = pool.tasks;
        int next = (int)(uint32_t)ticket;
        if (next >= tasks) return;
        if (atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket + 1)) {
            task(context, next, worker);
            atomic_fetch_add(&pool.finished, 1);
            ticket = atomic_load(&pool.ticket);
        }
    }
}

static void *work(void *argument) {
    int worker = (int)(intptr_t)argument;
    while (!atomic_load(&pool.leaving)) {
        pthread_mutex_lock(&pool.lock);
        while (!atomic_load(&pool.busy) && !atomic_load(&pool.leaving))
            pthread_cond_wait(&pool.wake, &pool.lock);
        pthread_mutex_unlock(&pool.lock);
        for (int spins = 0; atomic_load(&pool.busy); spins++) {
            take_tasks(worker);
            if (stands_aside(worker)) usleep(ASIDE_US);
            else relax(spins);
        }
    }
    return NULL;
}

static void run_tasks(Task *task, void *context, int tasks) {
    if (pool.threads == 1 || tasks == 1) {
        for (int i = 0; i < tasks; i++) task(context, i, 0);
        return;
    }
    pool.task = task;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store(&pool.finished, 0);
    uint_fast64_t generation = (atomic_load(&pool.ticket) >> 32) + 1;
    atomic_store(&pool.ticket, generation << 32);
    take_tasks(0);
    for (int spins = 0; atomic_load(&pool.finished) < tasks; spins++) relax(spins);
    atomic_store(&pool.ticket, generation << 32 | 0x7fffffffu); /* nothing left to take */
}

static void begin_work(void) {
    if (pool.threads == 1) return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.busy, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

static void end_work(void) { atomic_store(&pool.busy, 0); }

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER; /* held by whoever uses the pool */

static int resize_pool(int threads) {
    if (threads < 1) threads = 1;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads == pool.threads) return threads;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.leaving, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 1; i < pool.threads; i++) pthread_join(pool.thread[i], NULL);
    atomic_store(&pool.leaving, 0);
    atomic_store(&pool.ticket, (atomic_load(&pool.ticket) >> 32) << 32 | 0x7fffffffu);
    pool.threads = 1;
    for (int i = 1; i < threads; i++) {
        if (pthread_create(&pool.thread[i], NULL, work, (void *)(intptr_t)i)) break;
        pool.threads = i + 1;
    }
    return pool.threads;
}

/* Use this many threads from now on, the caller's included. Returns how many there are. */
int set_threads(int threads) {
    pthread_mutex_lock(&one_at_a_time);
    int made = resize_pool(threads);
    pthread_mutex_unlock(&one_at_a_time);
    return made;
}

/* Do with so many threads fewer from now on; negative, take them back. Costs nothing, unlike
 * set_threads, and works in the middle of a pass. */
void lend_cores(int cores) { atomic_fetch_add(&pool.lent, cores); }
