/* @NAME@: a network of @SHAPE@ inputs and @CLASSES@ outputs, written by Gossamer.
 *
 * Compile @NAME@.c with
 *
 *     cc -std=gnu99 -O3 -march=native -ffp-contract=fast -fopenmp -c @NAME@.c
 *
 * (-mcpu=native on ARM; without -fopenmp it runs in one thread; -D@UPPER@_SCALAR uses no vectors.) It needs the standard
 * headers, memcpy, memset and memcmp, and calls nothing else, but OpenMP where it is compiled with it. With plain -std=c99 compilers emit no fused multiply-add.
 *
 * in: n images (n, channels, rows, columns), float, one behind the other, as the network was given them when it was
 * written: pixels in [0, 1] of Gossamer's own, whose normalisation is inside. out: n rows of @CLASSES@ logits.
 * Every function returns 0 or one of the codes below, and then has written nothing.
 */
#ifndef @UPPER@_H
#define @UPPER@_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @UPPER@_CHANNELS @CHANNELS@
#define @UPPER@_ROWS @ROWS@
#define @UPPER@_COLUMNS @COLUMNS@
#define @UPPER@_CLASSES @CLASSES@

/* Bytes of the arena that this many threads need. */
#define @UPPER@_ARENA_BYTES(threads) \
    (64 + 4 * ((size_t)@BLOCK@ * (size_t)(threads) > (size_t)@SINGLE@ ? (size_t)@BLOCK@ * (size_t)(threads) : (size_t)@SINGLE@))

enum {
    @UPPER@_OK = 0,
    @UPPER@_BAD_ARGUMENT = 1, /* a null or misaligned pointer, or a number below 1 */
    @UPPER@_NO_BLOB = 2,      /* the constants have not been handed over */
    @UPPER@_BAD_BLOB = 3      /* they are not those of this network, or damaged */
};

/* One image, in memory that this file keeps: for one caller at a time. */
int @NAME@_run(const float *in, float *out);

/* n images, with @UPPER@_ARENA_BYTES(threads) bytes of working memory, at any address, and at most so many threads. */
int @NAME@_run_threads(const float *in, float *out, long n, void *arena, int threads);

/* The same with omp_get_max_threads() threads, for all of which the arena must be; with 1 without OpenMP. */
int @NAME@_run_arena(const float *in, float *out, long n, void *arena);
@SET_BLOB@
#ifdef __cplusplus
}
#endif
#endif
