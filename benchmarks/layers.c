/* What does each step of a network take, and what can this processor do at best? Prints names and numbers, a line each.
 * Of all passes the fastest counts, of every step its own: a busy machine adds, and never takes away. What is in
 * capitals is defined when it is compiled; WORK: how long the rates are measured. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEP_DONE(step) done(step)
static void done(int step);
#include NETWORK

static double spent[STEPS], before;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void done(int step) {
    const double at = now();
    if (at - before < spent[step]) spent[step] = at - before;
    before = at;
}

/* Floats read a second, and multiplied and added, from an array of so many floats, as the sparse kernel does it. */
static double reading(long floats) {
    static float data[1 << 20];
    vec a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0}, a6 = {0}, a7 = {0};
    const float v = data[3] + 1e-9f;
    const long times = WORK * 8 / floats + 1, each = 8 * LANES;
    double best = 0;
    for (long i = 0; i < floats; i++) data[i] = 1e-6f * (float)(i % 7);
    for (int attempt = 0; attempt < 5; attempt++) {
        const double from = now();
        for (long t = 0; t < times; t++)
            for (long i = 0; i < floats; i += each) {
                const float *x = data + i;
                a0 += v * LOAD(x), a1 += v * LOAD(x + LANES), a2 += v * LOAD(x + 2 * LANES), a3 += v * LOAD(x + 3 * LANES);
                a4 += v * LOAD(x + 4 * LANES), a5 += v * LOAD(x + 5 * LANES), a6 += v * LOAD(x + 6 * LANES);
                a7 += v * LOAD(x + 7 * LANES);
            }
        const double rate = (double)times * (double)floats / (now() - from);
        best = rate > best ? rate : best;
    }
    a0 += a1 + a2 + a3 + a4 + a5 + a6 + a7;
    STORE(data, a0);
    if (data[0] == 12345.0f) puts("");
    return best;
}

/* Multiply-adds a second that need no memory. */
static double computing(void) {
    const float one = (float)rand() * 1e-12f;
    const long times = WORK;
    double best = 0;
    vec a[MOST], v = SPLAT(one);
    for (int k = 0; k < MOST; k++) a[k] = SPLAT((float)k);
    for (int attempt = 0; attempt < 5; attempt++) {
        const double from = now();
        for (long t = 0; t < times; t++) {
#pragma GCC unroll 24
            for (int k = 0; k < MOST; k++) a[k] = a[k] * v + v;
        }
        const double rate = (double)times * MOST * LANES / (now() - from);
        best = rate > best ? rate : best;
    }
    for (int k = 1; k < MOST; k++) a[0] += a[k];
    float sums[LANES];
    STORE(sums, a[0]);
    if (sums[0] == 12345.0f) puts("");
    return best;
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 20;
    float *in = calloc(IMAGES * SIZE_IN, sizeof *in), *out = calloc(IMAGES * SIZE_OUT, sizeof *out);
    void *arena = malloc(ARENA);
    double whole = 0;
    for (long i = 0; i < IMAGES * SIZE_IN; i++) in[i] = (float)(i % 255) / 255.0f;
    for (int round = -3; round < rounds; round++) {
        const double from = now();
        if (round == 0) {
            for (int step = 0; step < STEPS; step++) spent[step] = HUGE_VAL;
            whole = HUGE_VAL;
        }
        before = from;
        if (RUN(in, out, IMAGES, arena, 1) != 0) return 1;
        if (now() - from < whole) whole = now() - from;
    }
    printf("whole %.9f\n", whole);
    for (int step = 0; step < STEPS; step++) printf("step %.9f\n", spent[step]);
    printf("compute %.0f\nfirst %.0f\nsecond %.0f\nthird %.0f\n", computing(), reading(4096), reading(65536), reading(1 << 20));
    printf("lanes %d\nmost %d\nmost_dense %d\nhalves %d\n", LANES, MOST, MOST_DENSE, LONG_VECTORS);
    return 0;
}
