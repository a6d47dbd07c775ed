/* Runs a network on every number of images from 1 to 35, in memory of exactly the sizes that it asks for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "toy.h"

#define SIZE_IN (TOY_CHANNELS * TOY_ROWS * TOY_COLUMNS)

static float logits[35 * TOY_CLASSES], image[SIZE_IN];

static int differs(float a, float b) { return fabsf(a - b) > 1e-4f * (1 + fabsf(b)); }

static int batch(long n, int threads) {
    size_t bytes = TOY_ARENA_BYTES(threads);
    float *in = malloc((size_t)n * SIZE_IN * sizeof *in), *out = malloc((size_t)n * TOY_CLASSES * sizeof *out);
    char *arena = malloc(bytes + 1);
    long wrong = 0;
    for (long i = 0; i < n * SIZE_IN; i++) in[i] = (float)(i * 7919 % 1000) / 1000;
    if (toy_run_threads(in, out, n, arena + 1, threads) != TOY_OK) return 1;
    for (long i = 0; i < n * TOY_CLASSES; i++) {
        if (n == 35 && threads == 1) logits[i] = out[i];
        if (differs(out[i], logits[i])) wrong++;
    }
    free(in);
    free(out);
    free(arena);
    return wrong > 0;
}

static int refuses(void) {
    static float in[SIZE_IN + 1], out[TOY_CLASSES + 1], arena[TOY_ARENA_BYTES(1) / sizeof(float) + 1];
    const char *odd = (const char *)in + 1;
    return toy_run_threads(NULL, out, 1, arena, 1) == TOY_BAD_ARGUMENT &&
           toy_run_threads(in, NULL, 1, arena, 1) == TOY_BAD_ARGUMENT &&
           toy_run_threads(in, out, 1, NULL, 1) == TOY_BAD_ARGUMENT &&
           toy_run_threads(in, out, 0, arena, 1) == TOY_BAD_ARGUMENT &&
           toy_run_threads(in, out, -5, arena, 1) == TOY_BAD_ARGUMENT &&
           toy_run_threads(in, out, 1, arena, 0) == TOY_BAD_ARGUMENT &&
           toy_run_threads((const float *)(const void *)odd, out, 1, arena, 1) == TOY_BAD_ARGUMENT &&
           toy_run(NULL, out) == TOY_BAD_ARGUMENT && toy_run(in, NULL) == TOY_BAD_ARGUMENT;
}

int main(void) {
    if (!refuses()) return 2;
    if (batch(35, 1)) return 3;
    for (long n = 1; n <= 35; n++)
        for (int threads = 1; threads <= 3; threads += 2)
            if (batch(n, threads)) return 4;
    for (long i = 0; i < SIZE_IN; i++) image[i] = (float)(i * 7919 % 1000) / 1000;
    for (int again = 0; again < 2; again++) {
        float out[TOY_CLASSES];
        if (toy_run(image, out) != TOY_OK) return 5;
        for (int i = 0; i < TOY_CLASSES; i++)
            if (differs(out[i], logits[i])) return 6;
    }
    for (int i = 0; i < 35 * TOY_CLASSES; i++) printf("%.9g\n", logits[i]);
    return 0;
}
