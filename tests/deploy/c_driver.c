/* Runs a network on every number of images from 1 to MOST, in memory of exactly the sizes that it asks for, placed as
   badly as its header allows and full of NaN, and hands it what callers get wrong. Prints the logits of MOST images.
   With BESIDE its argument is the file of constants, which it damages too; with UNSET memory stays unset. */
#define _POSIX_C_SOURCE 200112L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "toy.h"

#ifndef MOST
#define MOST 35
#endif
#define SIZE_IN (TOY_CHANNELS * TOY_ROWS * TOY_COLUMNS)

static float logits[MOST * TOY_CLASSES], largest;

static int differs(float a, float b) { return !(fabsf(a - b) <= 1e-4f * largest); }

static void set_to_nan(void *p, size_t bytes) {
#ifdef UNSET
    (void)p, (void)bytes;
#else
    memset(p, 0xff, bytes);
#endif
}

static float pixel(long i) { return (float)(i * 7919 % 1000) / 1000; }

/* Returns the code of a run. Images and logits begin `past` floats into their memory, and the arena lies `past` bytes
   behind a multiple of 64: at 0 nothing is left before it, at 1 but a byte behind what is used of it. */
static int run(long n, int threads, size_t past, float *to) {
    const size_t bytes = TOY_ARENA_BYTES(threads), size_in = (size_t)n * SIZE_IN, size_out = (size_t)n * TOY_CLASSES;
    float *in = malloc((size_in + past) * sizeof *in), *out = malloc((size_out + past) * sizeof *out);
    void *arena;
    int code;
    if (in == NULL || out == NULL || posix_memalign(&arena, 64, bytes + past) != 0) exit(9);
    for (size_t i = 0; i < size_in; i++) in[past + i] = pixel((long)i);
    set_to_nan(arena, bytes + past);
    set_to_nan(out, (size_out + past) * sizeof *out);
    code = toy_run_threads(in + past, out + past, n, (char *)arena + past, threads);
    memcpy(to, out + past, size_out * sizeof *to);
    free(in);
    free(out);
    free(arena);
    return code;
}

static int wrong(long n, int threads, size_t past) {
    float out[MOST * TOY_CLASSES];
    if (run(n, threads, past, out) != TOY_OK) return 1;
    for (long i = 0; i < n * TOY_CLASSES; i++)
        if (differs(out[i], logits[i])) return 1;
    return 0;
}

/* With as many threads as OpenMP would take. */
static int wrong_by_itself(void) {
    static float in[MOST * SIZE_IN], out[MOST * TOY_CLASSES];
#ifdef _OPENMP
    const int threads = omp_get_max_threads();
#else
    const int threads = 1;
#endif
    void *arena = malloc(TOY_ARENA_BYTES(threads));
    for (long i = 0; i < MOST * SIZE_IN; i++) in[i] = pixel(i);
    if (arena == NULL || toy_run_arena(in, out, MOST, arena) != TOY_OK) return 1;
    for (long i = 0; i < MOST * TOY_CLASSES; i++)
        if (differs(out[i], logits[i])) return 1;
    for (long image = 0; image < 2; image++) {
        float one[TOY_CLASSES];
        if (toy_run(in + image * SIZE_IN, one) != TOY_OK) return 1;
        for (long i = 0; i < TOY_CLASSES; i++)
            if (differs(one[i], logits[image * TOY_CLASSES + i])) return 1;
    }
    free(arena);
    return 0;
}

static int refuses(void) {
    static float in[SIZE_IN + 1], out[TOY_CLASSES + 1];
    static char arena[TOY_ARENA_BYTES(1)];
    const int bad = TOY_BAD_ARGUMENT;
    const void *odd_in = (const char *)in + 1;
    void *odd_out = (char *)out + 2;
    size_t i;
    if (toy_run_threads(NULL, out, 1, arena, 1) != bad || toy_run_threads(in, NULL, 1, arena, 1) != bad ||
        toy_run_threads(in, out, 1, NULL, 1) != bad || toy_run_threads(in, out, 0, arena, 1) != bad ||
        toy_run_threads(in, out, -5, arena, 1) != bad || toy_run_threads(in, out, 1, arena, 0) != bad ||
        toy_run_threads(in, out, 1, arena, -1) != bad || toy_run_threads(odd_in, out, 1, arena, 1) != bad ||
        toy_run_threads(in, odd_out, 1, arena, 1) != bad)
        return 0;
    if (toy_run_arena(NULL, out, 1, arena) != bad || toy_run_arena(in, NULL, 1, arena) != bad ||
        toy_run_arena(in, out, 1, NULL) != bad || toy_run_arena(in, out, 0, arena) != bad ||
        toy_run_arena(odd_in, out, 1, arena) != bad)
        return 0;
    if (toy_run(NULL, out) != bad || toy_run(in, NULL) != bad || toy_run(odd_in, out) != bad ||
        toy_run(in, odd_out) != bad)
        return 0;
    for (i = 0; i < TOY_CLASSES + 1; i++)
        if (out[i] != 0) return 0;
    for (i = 0; i < sizeof arena; i++)
        if (arena[i] != 0) return 0;
    return 1;
}

#ifdef BESIDE
/* The constants, in memory that ends with them. */
static unsigned char *constants_in(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *data;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) exit(9);
    *size = (size_t)ftell(file);
    rewind(file);
    data = malloc(*size);
    if (data == NULL || fread(data, 1, *size, file) != *size) exit(9);
    fclose(file);
    return data;
}

static int not_taken(const unsigned char *data, size_t size) {
    unsigned char *copy = malloc(size);
    int code;
    if (copy == NULL) exit(9);
    memcpy(copy, data, size);
    code = toy_set_blob(copy, size);
    free(copy);
    return code == TOY_BAD_BLOB;
}

/* Hands the constants over: cut short, with bits flipped, of a size that is not theirs, and at last whole. */
static int takes_only_its_own(const char *path) {
    static float in[SIZE_IN], out[TOY_CLASSES];
    static char arena[TOY_ARENA_BYTES(1)];
    size_t size, i;
    unsigned char *data = constants_in(path, &size);
    if (toy_set_blob(NULL, size) != TOY_BAD_ARGUMENT || toy_set_blob(data + 1, size) != TOY_BAD_ARGUMENT) return 0;
    if (toy_set_blob(data, 0) != TOY_BAD_BLOB || toy_set_blob(data, size + 1) != TOY_BAD_BLOB) return 0;
    if (toy_set_blob(data, (size_t)-1) != TOY_BAD_BLOB) return 0;
    for (i = 1; i < size; i += i < 72 ? 1 : size / 16)
        if (!not_taken(data, i)) return 0;
    if (!not_taken(data, size - 1)) return 0;
    for (i = 0; i < size; i += i < 72 ? 1 : size / 64 + 1) {
        data[i] ^= (unsigned char)(1 << i % 8);
        if (!not_taken(data, size)) return 0;
        data[i] ^= (unsigned char)(1 << i % 8);
    }
    if (toy_run(in, out) != TOY_NO_BLOB || toy_run_threads(in, out, 1, arena, 1) != TOY_NO_BLOB) return 0;
    return toy_set_blob(data, size) == TOY_OK;
}
#endif

int main(int count, char **arguments) {
    long i;
#ifdef BESIDE
    if (count != 2 || !takes_only_its_own(arguments[1])) return 2;
#else
    (void)count, (void)arguments;
#endif
    if (!refuses()) return 3;
    if (run(MOST, 1, 0, logits) != TOY_OK) return 4;
    for (i = 0; i < MOST * TOY_CLASSES; i++) {
        if (isnan(logits[i])) return 5;
        largest = fabsf(logits[i]) > largest ? fabsf(logits[i]) : largest;
    }
    for (long n = 1; n <= MOST; n++)
        for (int threads = 1; threads <= 3; threads++)
            for (size_t past = 0; past < 2; past++)
                if (wrong(n, threads, past)) return 6;
    if (wrong_by_itself()) return 7;
    for (i = 0; i < MOST * TOY_CLASSES; i++) printf("%.9g\n", logits[i]);
    return 0;
}
