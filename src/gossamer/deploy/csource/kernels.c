#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "the constants of this network are little-endian"
#endif
#endif

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Floats of a vector; vectors of sums of one channel that are held at a time, and of each of four of a dense layer. */
#if defined(@UPPER@_SCALAR) || !defined(__GNUC__) ||                                                                  \
    !(defined(__SSE__) || defined(__aarch64__) || defined(__ARM_NEON))
enum { LANES = 1 };
#define MOST 16
#define SCALAR
#elif defined(__AVX512F__)
enum { LANES = 16 };
#define LONG_VECTORS 1
#define MOST 12
#define MOST_DENSE 6
#elif defined(__AVX__)
enum { LANES = 8 };
#define MOST 12
#elif defined(__aarch64__)
enum { LANES = 4 };
#define MOST 24
#else
enum { LANES = 4 };
#define MOST 12
#endif
#ifndef MOST_DENSE
#define MOST_DENSE (MOST / 4)
#endif
#ifndef LONG_VECTORS
#define LONG_VECTORS 0
#endif
enum { LINE = 16, UNIT = @UNIT@, GROUP = 4 };

#ifdef SCALAR
typedef float vec;
#define ALONE
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SPLAT(x) (x)
#define FETCH(p, ahead) (void)0
#define AT_LEAST(v, bound) ((v) < (bound) ? (bound) : (v))
#define AT_MOST(v, bound) ((v) > (bound) ? (bound) : (v))
typedef float number;
typedef uint16_t place;
typedef int32_t whole;
#else
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int bits_of_vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#if LONG_VECTORS
enum { HALF_LANES = LANES / 2 };
typedef float half __attribute__((vector_size(4 * HALF_LANES)));
typedef int bits_of_half __attribute__((vector_size(4 * HALF_LANES)));
typedef float loose_half __attribute__((vector_size(4 * HALF_LANES), aligned(4), may_alias));
#endif
#define ALONE __restrict
#define LOAD(p) ((vec) * (const loose *)(p))
#define STORE(p, v) (*(loose *)(p) = (v))
#define SPLAT(x) ((x) - (vec){0})
#define FETCH(p, ahead) __builtin_prefetch((const void *)((uintptr_t)(p) + (ahead)))
#define CHOOSE(test, a, b) ((vec)(((test) & (bits_of_vec)(a)) | (~(test) & (bits_of_vec)(b))))
#define AT_LEAST(v, bound) CHOOSE((v) < SPLAT(bound), SPLAT(bound), v)
#define AT_MOST(v, bound) CHOOSE((v) > SPLAT(bound), SPLAT(bound), v)
typedef float number __attribute__((may_alias));
typedef uint16_t place __attribute__((may_alias));
typedef int32_t whole __attribute__((may_alias));
#endif

#if defined(USE_SPARSE_FLOATS) || defined(USE_SPARSE_CODES) || defined(USE_SPARSE_SIGNS) ||                           \
    defined(USE_DENSE_FLOATS) || defined(USE_DENSE_CODES)
#define USE_WEIGHTS
#endif

/* Whoever asks where the time goes defines it: 0, the images are taken; then each step; last, the logits are given. */
#ifndef STEP_DONE
#define STEP_DONE(step)
#endif

#define EACH_1(F) F(0)
#define EACH_2(F) EACH_1(F) F(1)
#define EACH_3(F) EACH_2(F) F(2)
#define EACH_4(F) EACH_3(F) F(3)
#define EACH_5(F) EACH_4(F) F(4)
#define EACH_6(F) EACH_5(F) F(5)
#define EACH_7(F) EACH_6(F) F(6)
#define EACH_8(F) EACH_7(F) F(7)
#define EACH_9(F) EACH_8(F) F(8)
#define EACH_10(F) EACH_9(F) F(9)
#define EACH_11(F) EACH_10(F) F(10)
#define EACH_12(F) EACH_11(F) F(11)
#define EACH_13(F) EACH_12(F) F(12)
#define EACH_14(F) EACH_13(F) F(13)
#define EACH_15(F) EACH_14(F) F(14)
#define EACH_16(F) EACH_15(F) F(15)
#define EACH_17(F) EACH_16(F) F(16)
#define EACH_18(F) EACH_17(F) F(17)
#define EACH_19(F) EACH_18(F) F(18)
#define EACH_20(F) EACH_19(F) F(19)
#define EACH_21(F) EACH_20(F) F(20)
#define EACH_22(F) EACH_21(F) F(21)
#define EACH_23(F) EACH_22(F) F(22)
#define EACH_24(F) EACH_23(F) F(23)

/* A map in the arena, in floats: its first cell, from plane to plane and row to row, the margins of a plane. */
typedef struct {
    long at, plane, row, before, behind, channels, height, width;
} map_t;

typedef struct job_t job_t;
typedef void kernel_t(const job_t *);

/* A weighted step. Constants are named by where they begin among all constants, in bytes. */
typedef struct {
    kernel_t *const *kernels;         /* by how many vectors of sums they hold; 0: half a one */
    const int32_t *reads;             /* floats from a cell that is made to the one read, for each place of a window */
    map_t out;
    long in, in_plane, channels;      /* of what is read: first cell, from channel to channel, how many */
    long add, add_plane;              /* the map that is added; -1: none */
    long chunk, together;             /* channels of a list of weights; lists that are read at a time */
    long window, outputs, run;        /* places of a window; output channels; floats of a plane, with gaps */
    long values, places, starts, order, scale, bias;
    int bits, most, apart, dense, scaled, clipped; /* apart: places count channels from the first of their list */
    float low, high;
} sum_t;

/* One tile of a weighted step: the same floats of many output channels, and a part of the channels that are read. */
struct job_t {
    const sum_t *sum;
    const float *in, *add;
    float *out;
    const unsigned char *values;
    const place *places;
    const whole *starts, *order;
    const number *scale, *bias, *codes;
    long first, last, count, begin, inputs; /* output channels; floats; channels of the first list, from which on */
    long lists, span;                       /* of an output channel (and sign), and how many of them are read */
    int begins, ends;
};

#define LOCALS(NV)                                                                                                    \
    const sum_t *sum = job->sum;                                                                                      \
    const int32_t *reads = sum->reads;                                                                                \
    const number *codes = job->codes;                                                                                 \
    const float *in = job->in;                                                                                        \
    const long plane = sum->in_plane, count = job->count;                                                             \
    const int filled = count == NV * LANES;                                                                           \
    float some[NV * LANES] = {0};                                                                                     \
    (void)codes;

/* Sums in the vectors a0, a1, ... of output channel o: what they begin with, and what is left to do at their end. */
#define BEGIN(n) vec a##n = start;
#define GET(n) a##n = LOAD(to + n * LANES);
#define PUT(n) STORE(to + n * LANES, a##n);
#define SCALE(n) a##n = a##n * scale + shift;
#define ADD_MAP(n) a##n += LOAD(add + n * LANES);
#define CLIP_LOW(n) a##n = AT_LEAST(a##n, low);
#define CLIP_HIGH(n) a##n = AT_MOST(a##n, high);
#define START(NV)                                                                                                     \
    float *y = job->out + o * sum->out.plane, *to = filled ? y : some;                                                \
    const vec start = SPLAT(sum->scaled ? 0.0f : job->bias[o]);                                                       \
    EACH_##NV(BEGIN)                                                                                                  \
    if (!job->begins) {                                                                                               \
        if (!filled) memcpy(some, y, (size_t)count * sizeof *y);                                                      \
        EACH_##NV(GET)                                                                                                \
    }
#define FINISH(NV)                                                                                                    \
    if (job->ends) {                                                                                                  \
        if (sum->scaled) {                                                                                            \
            const float scale = job->scale[o], shift = job->bias[o];                                                  \
            EACH_##NV(SCALE)                                                                                          \
        }                                                                                                             \
        if (job->add) {                                                                                               \
            const float *add = job->add + o * sum->add_plane;                                                         \
            EACH_##NV(ADD_MAP)                                                                                        \
        }                                                                                                             \
        if (sum->clipped) {                                                                                           \
            const float low = sum->low, high = sum->high;                                                             \
            EACH_##NV(CLIP_LOW)                                                                                       \
            if (sum->clipped > 1) { EACH_##NV(CLIP_HIGH) }                                                            \
        }                                                                                                             \
    }                                                                                                                 \
    EACH_##NV(PUT)                                                                                                    \
    if (!filled) memcpy(y, to, (size_t)count * sizeof *y);

/* Sparse: the cells that a kept weight reads are multiplied by it and added. Few vectors get a second set of sums, so
   that additions need not wait for one another. A place is the channel above `bits` bits for the place of the
   window. */
#define FLOATS(k) (((const number *)job->values)[k])
#define CODES(k) (codes[job->values[k]])
#define AT(k) (in + (long)(places[k] >> bits) * plane + reads[places[k] & mask])
#define SECOND(n) vec b##n = SPLAT(0.0f);
#define JOIN(n) a##n += b##n;
#define TIMES(n) a##n += v * LOAD(x + n * LANES);
#define TIMES_SECOND(n) b##n += u * LOAD(z + n * LANES);
#define PLUS(n) a##n += LOAD(x + n * LANES);
#define PLUS_SECOND(n) b##n += LOAD(z + n * LANES);
#define MINUS(n) a##n -= LOAD(x + n * LANES);
#define MINUS_SECOND(n) b##n -= LOAD(z + n * LANES);
#define WEIGHTS_1(NV, VALUE)                                                                                          \
    for (; k < own[span]; k++) {                                                                                      \
        const float *x = AT(k), v = VALUE(k);                                                                         \
        EACH_##NV(TIMES)                                                                                              \
    }
#define WEIGHTS_2(NV, VALUE)                                                                                          \
    EACH_##NV(SECOND)                                                                                                 \
    for (const long end = own[span] - 1; k < end; k += 2) {                                                           \
        const float *x = AT(k), v = VALUE(k), *z = AT(k + 1), u = VALUE(k + 1);                                       \
        EACH_##NV(TIMES)                                                                                              \
        EACH_##NV(TIMES_SECOND)                                                                                       \
    }                                                                                                                 \
    WEIGHTS_1(NV, VALUE)                                                                                              \
    EACH_##NV(JOIN)
#define ADD_1(NV, DO, END)                                                                                            \
    for (; k < END; k++) {                                                                                            \
        const float *x = AT(k);                                                                                       \
        EACH_##NV(DO)                                                                                                 \
    }
#define ADD_2(NV, DO, END)                                                                                            \
    for (const long end = END - 1; k < end; k += 2) {                                                                 \
        const float *x = AT(k), *z = AT(k + 1);                                                                       \
        EACH_##NV(DO)                                                                                                 \
        EACH_##NV(DO##_SECOND)                                                                                        \
    }                                                                                                                 \
    ADD_1(NV, DO, END)
#define SIGNS_1(NV)                                                                                                   \
    ADD_1(NV, PLUS, own[span])                                                                                        \
    k = own[lists];                                                                                                   \
    ADD_1(NV, MINUS, own[lists + span])
#define SIGNS_2(NV)                                                                                                   \
    EACH_##NV(SECOND)                                                                                                 \
    ADD_2(NV, PLUS, own[span])                                                                                        \
    k = own[lists];                                                                                                   \
    ADD_2(NV, MINUS, own[lists + span])                                                                               \
    EACH_##NV(JOIN)
#define SPARSE(NAME, NV, LISTS, LOOP)                                                                                 \
    static void NAME##_##NV(const job_t *job) {                                                                       \
        LOCALS(NV)                                                                                                    \
        const place *places = job->places;                                                                            \
        const long lists = job->lists, span = job->span;                                                              \
        const int bits = sum->bits, mask = (1 << bits) - 1;                                                           \
        for (long i = job->first; i < job->last; i++) {                                                               \
            const long o = job->order[i];                                                                             \
            const whole *own = job->starts + LISTS * lists * i;                                                       \
            long k = own[0];                                                                                          \
            START(NV)                                                                                                 \
            LOOP                                                                                                      \
            FINISH(NV)                                                                                                \
        }                                                                                                             \
    }

/* Dense: the weights of four output channels for one place stand side by side. They are computed together. Weights are
   asked for so many bytes before: where there is one image they come from memory, each for a few sums. */
enum { AHEAD = 4096 };
#define HOLD(n) const vec x##n = LOAD(x + n * LANES);
#define BEGIN_FOUR(n) vec p##n = SPLAT(0.0f), q##n = p##n, r##n = p##n, s##n = p##n;
#define TIMES_P(n) p##n += v * x##n;
#define TIMES_Q(n) q##n += v * x##n;
#define TIMES_R(n) r##n += v * x##n;
#define TIMES_S(n) s##n += v * x##n;
#define JOIN_P(n) a##n += p##n;
#define JOIN_Q(n) a##n += q##n;
#define JOIN_R(n) a##n += r##n;
#define JOIN_S(n) a##n += s##n;
#define FINISH_ONE(NV, INDEX, JOINS)                                                                                  \
    if (INDEX < sum->outputs) {                                                                                       \
        const long o = INDEX;                                                                                         \
        START(NV)                                                                                                     \
        EACH_##NV(JOINS)                                                                                              \
        FINISH(NV)                                                                                                    \
    }
#define DENSE(NAME, NV, VALUE, BYTES)                                                                                 \
    static void NAME##_##NV(const job_t *job) {                                                                       \
        LOCALS(NV)                                                                                                    \
        const long window = sum->window, groups = (sum->outputs + GROUP - 1) / GROUP;                                 \
        for (long g = job->first; g < job->last; g++) {                                                               \
            long k = GROUP * window * (job->begin * groups + job->inputs * g);                                        \
            EACH_##NV(BEGIN_FOUR)                                                                                     \
            for (long c = 0; c < job->inputs; c++)                                                                    \
                for (long t = 0; t < window; t++, k += GROUP) {                                                       \
                    const float *x = in + c * plane + reads[t];                                                       \
                    FETCH(job->values + BYTES * k, AHEAD);                                                            \
                    EACH_##NV(HOLD)                                                                                   \
                    { const float v = VALUE(k); EACH_##NV(TIMES_P) }                                                  \
                    { const float v = VALUE(k + 1); EACH_##NV(TIMES_Q) }                                              \
                    { const float v = VALUE(k + 2); EACH_##NV(TIMES_R) }                                              \
                    { const float v = VALUE(k + 3); EACH_##NV(TIMES_S) }                                              \
                }                                                                                                     \
            FINISH_ONE(NV, GROUP * g, JOIN_P)                                                                         \
            FINISH_ONE(NV, GROUP * g + 1, JOIN_Q)                                                                     \
            FINISH_ONE(NV, GROUP * g + 2, JOIN_R)                                                                     \
            FINISH_ONE(NV, GROUP * g + 3, JOIN_S)                                                                     \
        }                                                                                                             \
    }
#define SPARSE_FLOATS_1(NV) SPARSE(sparse_floats, NV, 1, WEIGHTS_1(NV, FLOATS))
#define SPARSE_FLOATS_2(NV) SPARSE(sparse_floats, NV, 1, WEIGHTS_2(NV, FLOATS))
#define SPARSE_CODES_1(NV) SPARSE(sparse_codes, NV, 1, WEIGHTS_1(NV, CODES))
#define SPARSE_CODES_2(NV) SPARSE(sparse_codes, NV, 1, WEIGHTS_2(NV, CODES))
#define SPARSE_SIGNS_1(NV) SPARSE(sparse_signs, NV, 2, SIGNS_1(NV))
#define SPARSE_SIGNS_2(NV) SPARSE(sparse_signs, NV, 2, SIGNS_2(NV))
#define DENSE_FLOATS(NV) DENSE(dense_floats, NV, FLOATS, 4)
#define DENSE_CODES(NV) DENSE(dense_codes, NV, CODES, 1)

#if MOST == 12
#define SIZES(F) HALF(F), F##_1, F##_2, F##_3, F##_4, F##_5, F##_6, F##_7, F##_8, F##_9, F##_10, F##_11, F##_12
#define MAKE(ONE, TWO) TWO(1) TWO(2) TWO(3) TWO(4) TWO(5) TWO(6) ONE(7) ONE(8) ONE(9) ONE(10) ONE(11) ONE(12)
#elif MOST == 16
#define SIZES(F)                                                                                                      \
    HALF(F), F##_1, F##_2, F##_3, F##_4, F##_5, F##_6, F##_7, F##_8, F##_9, F##_10, F##_11, F##_12, F##_13, F##_14, F##_15, \
        F##_16
#define MAKE(ONE, TWO)                                                                                                \
    TWO(1) TWO(2) TWO(3) TWO(4) TWO(5) TWO(6) TWO(7) TWO(8) ONE(9) ONE(10) ONE(11) ONE(12) ONE(13) ONE(14) ONE(15)    \
    ONE(16)
#else
#define SIZES(F)                                                                                                      \
    HALF(F), F##_1, F##_2, F##_3, F##_4, F##_5, F##_6, F##_7, F##_8, F##_9, F##_10, F##_11, F##_12, F##_13, F##_14, F##_15, \
        F##_16, F##_17, F##_18, F##_19, F##_20, F##_21, F##_22, F##_23, F##_24
#define MAKE(ONE, TWO)                                                                                                \
    TWO(1) TWO(2) TWO(3) TWO(4) TWO(5) TWO(6) TWO(7) TWO(8) TWO(9) TWO(10) TWO(11) TWO(12) ONE(13) ONE(14) ONE(15)    \
    ONE(16) ONE(17) ONE(18) ONE(19) ONE(20) ONE(21) ONE(22) ONE(23) ONE(24)
#endif
#if MOST_DENSE == 3
#define SIZES_DENSE(F) 0, F##_1, F##_2, F##_3
#define MAKE_DENSE(F) F(1) F(2) F(3)
#elif MOST_DENSE == 4
#define SIZES_DENSE(F) 0, F##_1, F##_2, F##_3, F##_4
#define MAKE_DENSE(F) F(1) F(2) F(3) F(4)
#else
#define SIZES_DENSE(F) 0, F##_1, F##_2, F##_3, F##_4, F##_5, F##_6
#define MAKE_DENSE(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif

/* Maps of so few floats that half a vector holds them: what is read of a channel takes fewer lines of the cache. */
#if LONG_VECTORS
#define vec half
#define bits_of_vec bits_of_half
#define loose loose_half
#define LANES HALF_LANES
#ifdef USE_SPARSE_FLOATS
SPARSE(sparse_floats_half, 1, 1, WEIGHTS_2(1, FLOATS))
#endif
#ifdef USE_SPARSE_CODES
SPARSE(sparse_codes_half, 1, 1, WEIGHTS_2(1, CODES))
#endif
#ifdef USE_SPARSE_SIGNS
SPARSE(sparse_signs_half, 1, 2, SIGNS_2(1))
#endif
#undef vec
#undef bits_of_vec
#undef loose
#undef LANES
#define HALF(F) F##_half_1
#else
#define HALF(F) 0
#endif

#ifdef USE_SPARSE_FLOATS
MAKE(SPARSE_FLOATS_1, SPARSE_FLOATS_2)
static kernel_t *const sparse_floats[] = {SIZES(sparse_floats)};
#endif
#ifdef USE_SPARSE_CODES
MAKE(SPARSE_CODES_1, SPARSE_CODES_2)
static kernel_t *const sparse_codes[] = {SIZES(sparse_codes)};
#endif
#ifdef USE_SPARSE_SIGNS
MAKE(SPARSE_SIGNS_1, SPARSE_SIGNS_2)
static kernel_t *const sparse_signs[] = {SIZES(sparse_signs)};
#endif
#ifdef USE_DENSE_FLOATS
MAKE_DENSE(DENSE_FLOATS)
static kernel_t *const dense_floats[] = {SIZES_DENSE(dense_floats)};
#endif
#ifdef USE_DENSE_CODES
MAKE_DENSE(DENSE_CODES)
static kernel_t *const dense_codes[] = {SIZES_DENSE(dense_codes)};
#endif

@KEPT_CONSTANTS@
static void zeros(float *p, long count) {
    if (count > 0) memset(p, 0, (size_t)count * sizeof *p);
}

#if defined(USE_WEIGHTS) || defined(USE_SCALED)
static const number *numbers(long at) { return (const number *)(const void *)(constants() + at); }
#endif

/* Sets the margins of a plane to zero, where it has any. */
static void frame(float *m, const map_t *map, long channel, long unit) {
    float *p = m + map->at + channel * map->plane;
    const long filled = map->width * unit, run = (map->height - 1) * map->row + filled;
    if (map->before + map->behind == 0) return;
    zeros(p - map->before, map->before);
    /* Down the rows, as gaps are short: a float or two, or as many as there are images side by side. */
    for (long gap = filled; gap < map->row; gap++)
        for (long y = 0; y < map->height - 1; y++) p[y * map->row + gap] = 0;
    zeros(p + run, map->behind);
}

/* Waits for the other threads of this network. */
static void meet(long parts) {
    if (parts < 2) return;
#ifdef _OPENMP
#pragma omp barrier
#endif
}

/* Where the share of a thread begins, of `count` pieces. */
static long share(long count, long part, long parts) { return count / parts * part + count % parts * part / parts; }

#ifdef USE_WEIGHTS
/* How long the first `count` output channels take: by their weights, and one each for what comes with every channel. */
static long weights_of(const whole *starts, long lists, long count) { return count + starts[lists * count]; }

/* Where the share of a thread begins, of output channels with so many lists each that take so long. */
static long share_of_weights(const whole *starts, long lists, long outputs, long part, long parts) {
    const long before = share(weights_of(starts, lists, outputs), part, parts);
    long low = 0, high = outputs;
    while (low < high) {
        const long middle = (low + high) / 2;
        if (weights_of(starts, lists, middle) < before) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void weigh(float *m, const sum_t *sum, long unit, long part, long parts) {
    const unsigned char *all = constants();
    const long chunks = (sum->channels + sum->chunk - 1) / sum->chunk, each = sum->values < 0 ? 2 : 1;
    const whole *starts = (const whole *)(const void *)(all + sum->starts);
    const int halved = LONG_VECTORS && !sum->dense && 2 * sum->run <= LANES;
    const long lanes = halved ? LANES / 2 : LANES, vectors = (sum->run + lanes - 1) / lanes;
    const long tiles = (vectors + sum->most - 1) / sum->most, room = sum->out.plane - sum->out.before;
    job_t job;
    memset(&job, 0, sizeof job);
    job.sum = sum;
    job.values = all + (sum->values < 0 ? 0 : sum->values);
    job.codes = numbers(0);
    job.scale = numbers(sum->scale);
    job.bias = numbers(sum->bias);
    job.lists = chunks;
    if (sum->dense) {
        const long groups = (sum->outputs + GROUP - 1) / GROUP;
        job.first = share(groups, part, parts);
        job.last = share(groups, part + 1, parts);
    } else {
        job.places = (const place *)(const void *)(all + sum->places);
        job.order = (const whole *)(const void *)(all + sum->order);
        job.first = parts > 1 ? share_of_weights(starts, each * chunks, sum->outputs, part, parts) : 0;
        job.last = parts > 1 ? share_of_weights(starts, each * chunks, sum->outputs, part + 1, parts) : sum->outputs;
    }
    for (long tile = 0; tile < tiles; tile++) {
        /* In 64 bits: a long may have 32, too few for the products. */
        const long from = (long)((int64_t)vectors * tile / tiles), to = (long)((int64_t)vectors * (tile + 1) / tiles);
        const long at = from * lanes, next = to * lanes;
        job.count = next <= room ? next - at : sum->run - at;
        job.out = m + sum->out.at + at;
        job.add = sum->add < 0 ? 0 : m + sum->add + at;
        for (long chunk = 0; chunk < chunks; chunk += job.span) {
            job.span = chunks - chunk < sum->together ? chunks - chunk : sum->together;
            job.begin = chunk * sum->chunk;
            job.inputs = sum->channels - job.begin < sum->chunk ? sum->channels - job.begin : sum->chunk;
            job.in = m + sum->in + at + (sum->apart ? job.begin * sum->in_plane : 0);
            job.starts = starts + chunk;
            job.begins = chunk == 0;
            job.ends = chunk + job.span == chunks;
            sum->kernels[halved ? 0 : to - from](&job);
        }
    }
    if (sum->dense)
        for (long o = GROUP * job.first; o < GROUP * job.last && o < sum->outputs; o++) frame(m, &sum->out, o, unit);
    else
        for (long i = job.first; i < job.last; i++) frame(m, &sum->out, job.order[i], unit);
}
#endif

#ifdef USE_SCALED
/* scale * x + shift, clipped; scale and shift are where they begin among the constants, -1: none. */
typedef struct {
    map_t in, out;
    long scale, shift;
    float low, high;
} scaled_t;

static void scale_map(float *m, const scaled_t *step, long unit, long part, long parts) {
    const long channels = step->out.channels, filled = step->out.width * unit;
    const float low = step->low, high = step->high;
    for (long c = share(channels, part, parts); c < share(channels, part + 1, parts); c++) {
        const float scale = step->scale < 0 ? 1 : numbers(step->scale)[c];
        const float shift = step->shift < 0 ? 0 : numbers(step->shift)[c];
        for (long y = 0; y < step->out.height; y++) {
            const float *x = m + step->in.at + c * step->in.plane + y * step->in.row;
            float *to = m + step->out.at + c * step->out.plane + y * step->out.row;
            for (long i = 0; i < filled; i++) {
                const float v = x[i] * scale + shift, raised = v < low ? low : v;
                to[i] = raised > high ? high : raised;
            }
        }
        frame(m, &step->out, c, unit);
    }
}
#endif

#ifdef USE_SUMMED
/* The sum of two maps, clipped. */
typedef struct {
    map_t one, other, out;
    float low, high;
} summed_t;

static void add_maps(float *m, const summed_t *step, long unit, long part, long parts) {
    const long channels = step->out.channels, filled = step->out.width * unit;
    const float low = step->low, high = step->high;
    for (long c = share(channels, part, parts); c < share(channels, part + 1, parts); c++) {
        for (long y = 0; y < step->out.height; y++) {
            const float *x = m + step->one.at + c * step->one.plane + y * step->one.row;
            const float *z = m + step->other.at + c * step->other.plane + y * step->other.row;
            float *to = m + step->out.at + c * step->out.plane + y * step->out.row;
            for (long i = 0; i < filled; i++) {
                const float v = x[i] + z[i], raised = v < low ? low : v;
                to[i] = raised > high ? high : raised;
            }
        }
        frame(m, &step->out, c, unit);
    }
}
#endif

#if defined(USE_COPY) || defined(USE_CLEAR)
static void clear_plane(float *m, const map_t *map, long channel, long unit) {
    float *p = m + map->at + channel * map->plane;
    zeros(p - map->before, map->before + (map->height - 1) * map->row + map->width * unit + map->behind);
}
#endif

#ifdef USE_CLEAR
/* Zeros in some planes. */
typedef struct {
    map_t out;
    long first, count;
} clear_t;

static void clear_planes(float *m, const clear_t *step, long unit, long part, long parts) {
    for (long c = share(step->count, part, parts); c < share(step->count, part + 1, parts); c++)
        clear_plane(m, &step->out, step->first + c, unit);
}
#endif

#ifdef USE_COPY
/* A rectangle of `height` rows of `width` cells; cells, rows and planes that are read may lie apart. */
typedef struct {
    map_t in, out;
    long height, width, start_y, start_x, step_y, step_x, place_y, place_x, first, every;
} copy_t;

static void copy_map(float *m, const copy_t *step, long unit, long part, long parts) {
    const long channels = step->in.channels;
    const int all = step->height == step->out.height && step->width == step->out.width;
    for (long c = share(channels, part, parts); c < share(channels, part + 1, parts); c++) {
        const long channel = step->first + c * step->every;
        if (all) frame(m, &step->out, channel, unit);
        else clear_plane(m, &step->out, channel, unit);
        for (long y = 0; y < step->height; y++) {
            const float *x = m + step->in.at + c * step->in.plane + (step->start_y + y * step->step_y) * step->in.row +
                             step->start_x * unit;
            float *to = m + step->out.at + channel * step->out.plane + (step->place_y + y) * step->out.row +
                        step->place_x * unit;
            if (step->step_x == 1) memcpy(to, x, (size_t)(step->width * unit) * sizeof *to);
            else if (unit == 1 && step->step_x == 2) /* by vectors, as the distance is known */
                for (long i = 0; i < step->width; i++) to[i] = x[2 * i];
            else if (unit == 1)
                for (long i = 0; i < step->width; i++) to[i] = x[i * step->step_x];
            else
                for (long i = 0; i < step->width; i++)
                    memcpy(to + i * UNIT, x + i * step->step_x * UNIT, UNIT * sizeof *to);
        }
    }
}
#endif

#ifdef USE_POOLED
/* The largest value or the mean of windows; cells in the margins are no part of them. */
typedef struct {
    map_t in, out;
    long window_y, window_x, step_y, step_x, above, left;
    int mean, counts_margins;
} pooled_t;

/* Output x, first <= x < last, takes the cell x * step - gone of a row into account. */
static void pool_cells(float *to, const float *from, long first, long last, long step, long gone, long unit, int mean) {
    for (long x = first; x < last; x++)
        for (long i = 0; i < unit; i++) {
            const float value = from[(x * step - gone) * unit + i], before = to[x * unit + i];
            if (mean) to[x * unit + i] = before + value;
            else to[x * unit + i] = value > before || value != value ? value : before; /* not a number stays */
        }
}

/* A row of outputs takes column u of the window into account, of one row that is read. By vectors, as distances are
   known to the compiler. */
static void pool_column(const pooled_t *step, float *to, const float *from, long u, long unit) {
    const long gone = step->left - u, by = step->step_x, end = step->in.width + gone;
    const long first = gone > 0 ? (gone + by - 1) / by : 0, fit = end > 0 ? (end + by - 1) / by : 0;
    const long last = fit < step->out.width ? fit : step->out.width;
    if (unit > 1) pool_cells(to, from, first, last, by, gone, UNIT, step->mean);
    else if (by == 1) pool_cells(to, from, first, last, 1, gone, 1, step->mean);
    else if (by == 2) pool_cells(to, from, first, last, 2, gone, 1, step->mean);
    else pool_cells(to, from, first, last, by, gone, 1, step->mean);
}

/* Divides a row of sums by how many cells they have, of so many rows that were read. */
static void pool_means(const pooled_t *step, float *to, long rows, long unit) {
    for (long x = 0; x < step->out.width; x++) {
        const long start = x * step->step_x - step->left, end = start + step->window_x;
        const long left = start < 0 ? 0 : start, right = end > step->in.width ? step->in.width : end;
        const long seen = rows > 0 && right > left ? rows * (right - left) : 0;
        const long count = step->counts_margins ? step->window_y * step->window_x : seen;
        for (long i = 0; i < unit; i++) to[x * unit + i] /= (float)count;
    }
}

/* Outputs from two cells of two rows each. By vectors, as their number and all distances are known to the compiler. */
static inline void pool_some_fours(float *ALONE to, const float *ALONE one, const float *ALONE other, long count,
                                   int mean) {
    for (long x = 0; x < count; x++) {
        const float a = one[2 * x], b = one[2 * x + 1], c = other[2 * x], d = other[2 * x + 1];
        const float ab = b > a || b != b ? b : a, cd = d > c || d != d ? d : c; /* not a number stays */
        to[x] = mean ? (a + b + c + d) / 4 : cd > ab || cd != cd ? cd : ab;
    }
}

static void pool_fours(float *to, const float *one, const float *other, long count, int mean) {
    long x = 0;
    if (mean) {
        pool_some_fours(to, one, other, count, 1);
        return;
    }
    for (; x + 16 <= count; x += 16) pool_some_fours(to + x, one + 2 * x, other + 2 * x, 16, 0);
    for (; x + 8 <= count; x += 8) pool_some_fours(to + x, one + 2 * x, other + 2 * x, 8, 0);
    for (; x + 4 <= count; x += 4) pool_some_fours(to + x, one + 2 * x, other + 2 * x, 4, 0);
    for (; x + 2 <= count; x += 2) pool_some_fours(to + x, one + 2 * x, other + 2 * x, 2, 0);
    pool_some_fours(to + x, one + 2 * x, other + 2 * x, count - x, 0);
}

static int pools_fours(const pooled_t *step, long unit) {
    const map_t *in = &step->in, *out = &step->out;
    return unit == 1 && step->window_y == 2 && step->window_x == 2 && step->step_y == 2 && step->step_x == 2 &&
           step->above == 0 && step->left == 0 && 2 * out->height <= in->height && 2 * out->width <= in->width;
}

static void pool_map(float *m, const pooled_t *step, long unit, long part, long parts) {
    const map_t *in = &step->in, *out = &step->out;
    const long channels = out->channels;
    const int fours = pools_fours(step, unit);
    for (long c = share(channels, part, parts); c < share(channels, part + 1, parts); c++) {
        for (long y = 0; fours && y < out->height; y++) {
            const float *from = m + in->at + c * in->plane + 2 * y * in->row;
            pool_fours(m + out->at + c * out->plane + y * out->row, from, from + in->row, out->width, step->mean);
        }
        for (long y = 0; !fours && y < out->height; y++) {
            const long above = y * step->step_y - step->above, below = above + step->window_y;
            const long top = above < 0 ? 0 : above, bottom = below > in->height ? in->height : below;
            float *to = m + out->at + c * out->plane + y * out->row;
            for (long i = 0; i < out->width * unit; i++) to[i] = step->mean ? 0 : -HUGE_VALF;
            for (long v = top; v < bottom; v++)
                for (long u = 0; u < step->window_x; u++)
                    pool_column(step, to, m + in->at + c * in->plane + v * in->row, u, unit);
            if (step->mean) pool_means(step, to, bottom - top, unit);
        }
        frame(m, out, c, unit);
    }
}
#endif

#ifdef USE_FLATTENED
/* A map as features. */
typedef struct {
    map_t in, out;
} flattened_t;

static void flatten_map(float *m, const flattened_t *step, long unit, long part, long parts) {
    const map_t *in = &step->in;
    for (long c = share(in->channels, part, parts); c < share(in->channels, part + 1, parts); c++)
        for (long cell = 0; cell < in->height * in->width; cell++) {
            const long feature = c * in->height * in->width + cell;
            const float *x = m + in->at + c * in->plane + cell / in->width * in->row + cell % in->width * unit;
            memcpy(m + step->out.at + feature * step->out.plane, x, (size_t)unit * sizeof *x);
            frame(m, &step->out, feature, unit);
        }
}
#endif

/* Images (N, channels, rows, columns) into a map; of a block, those that are missing are zero. */
static void take(float *m, const map_t *map, const float *in, long count, long unit, long part, long parts) {
    const long size = map->channels * map->height * map->width;
    for (long c = share(map->channels, part, parts); c < share(map->channels, part + 1, parts); c++) {
        for (long y = 0; y < map->height; y++) {
            float *to = m + map->at + c * map->plane + y * map->row;
            const float *x = in + (c * map->height + y) * map->width;
            if (unit == 1) {
                memcpy(to, x, (size_t)map->width * sizeof *to);
                continue;
            }
            if (count < unit) zeros(to, map->width * unit);
            for (long n = 0; n < count; n++)
                for (long i = 0; i < map->width; i++) to[i * UNIT + n] = x[n * size + i];
        }
        frame(m, map, c, unit);
    }
}

/* A map as (N, channels, rows, columns). */
static void give(const float *m, const map_t *map, float *out, long count, long unit, long part, long parts) {
    const long size = map->channels * map->height * map->width;
    for (long c = share(map->channels, part, parts); c < share(map->channels, part + 1, parts); c++)
        for (long y = 0; y < map->height; y++) {
            const float *x = m + map->at + c * map->plane + y * map->row;
            float *to = out + (c * map->height + y) * map->width;
            for (long n = 0; n < count; n++)
                for (long i = 0; i < map->width; i++) to[n * size + i] = x[i * unit + n];
        }
}
