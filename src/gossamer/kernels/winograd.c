/* How is a 3x3 convolution of stride 1 and padding 1 computed with a quarter of the multiplications?
 *
 * Winograd's F(4x4, 3x3) (Lavin & Gray, CVPR 2016): y = A^T [sum over channels of (B^T x B) * (G w G^T)] A for
 * every 4x4 tile of the output, with interpolation points 0, 1, -1, 2, -2 and infinity. 36 multiplications replace
 * 144. The sum over channels is one small matrix product for each of the 36 positions of a transformed tile.
 *
 * Images are NHWC float32. Of the two transformed operands, tiles and weights, the smaller one is held whole; the
 * other passes in blocks that stay in cache. Every output is one fixed sequence of operations, whatever the number of
 * threads and wherever its tile falls in a block, so bits depend on neither.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, PANEL = 2, ROWS = 12 };
#elif defined(__AVX__)
enum { LANES = 8, PANEL = 2, ROWS = 6 };
#elif defined(__ARM_NEON)
enum { LANES = 4, PANEL = 4, ROWS = 6 };
#else
enum { LANES = 4, PANEL = 2, ROWS = 6 };
#endif
enum { OUT = 4, IN = 6, POINTS = IN * IN, TAPS = 9 };
/* Floats of a cache line; tiles of a block, measured; input channels of weights transformed at a time, likewise. */
enum { LINE = 16, TILES = 48, DEPTH = 128 };

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int bits __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* y = conv(x, w) + bias + add, set to 0 where gate (or y itself, with relu) is not positive. NULL: absent. */
typedef struct {
    const float *x, *w, *bias, *add, *gate;
    float *y;
    long images, height, width, inputs, outputs;
    long step_in, step_out, step_tap; /* of w, in floats */
    long relu;
} conv_t;

typedef struct {
    const conv_t *conv;
    long down, across, tiles, padded; /* tiles along the image, in all; inputs rounded up to LANES */
    long block, panels, stride;       /* tiles in a block; panels of output channels; floats between two points of V */
    float *whole, *zeros;             /* the operand held whole; a pixel of zeros */
} plan_t;

INLINE long round_up(long value, long unit) { return (value + unit - 1) / unit * unit; }
INLINE long least(long a, long b) { return a < b ? a : b; }

INLINE vec load(const float *p, long lanes) {
    if (lanes == LANES) return *(const loose *)p;
    vec v = {0};
    for (long i = 0; i < lanes; i++) v[i] = p[i];
    return v;
}

INLINE void store(float *p, vec v, long lanes) {
    if (lanes == LANES) {
        *(loose *)p = v;
        return;
    }
    for (long i = 0; i < lanes; i++) p[i] = v[i];
}

/* A NaN in `gate` lets v through, as torch's ReLU and its gradient do. */
INLINE vec where_positive(vec gate, vec v) { return (vec)(~(gate <= 0) & (bits)v); }

/* B^T, G and A^T on one row or column. */
INLINE void to_input(vec *o, vec a, vec b, vec c, vec d, vec e, vec f) {
    vec s = e - 4 * c, t = d - 4 * b, p = e - c, q = d - b;
    o[0] = 4 * a + (e - 5 * c);
    o[1] = s + t;
    o[2] = s - t;
    o[3] = p + 2 * q;
    o[4] = p - 2 * q;
    o[5] = 4 * b + (f - 5 * d);
}

INLINE void to_weight(vec *o, vec a, vec b, vec c) {
    vec s = (a + c) * (-1.0f / 6), t = b * (1.0f / 6), p = a * (1.0f / 24) + c * (1.0f / 6), q = b * (1.0f / 12);
    o[0] = a * 0.25f;
    o[1] = s - t;
    o[2] = s + t;
    o[3] = p + q;
    o[4] = p - q;
    o[5] = c;
}

INLINE void to_output(vec *o, vec a, vec b, vec c, vec d, vec e, vec f) {
    vec s = b + c, t = b - c, p = d + e, q = d - e;
    o[0] = a + s + p;
    o[1] = t + 2 * q;
    o[2] = s + 4 * p;
    o[3] = t + 8 * q + f;
}

/* The 36 pixels of tile t, row by row; what lies outside the image is read from `zeros`. */
INLINE void pixels(const plan_t *plan, long t, const float **place) {
    const conv_t *conv = plan->conv;
    long n = t / (plan->down * plan->across), i = t / plan->across % plan->down * OUT - 1;
    long j = t % plan->across * OUT - 1;
    for (long a = 0; a < IN; a++) {
        int seen = i + a >= 0 && i + a < conv->height;
        const float *row = conv->x + ((n * conv->height + i + a) * conv->width + j) * conv->inputs;
        UNROLL for (long b = 0; b < IN; b++)
            place[a * IN + b] = seen && j + b >= 0 && j + b < conv->width ? row + b * conv->inputs : plan->zeros;
    }
}

INLINE void tile_in(const float *const *x, long c, float *v, long stride, long lanes) {
    vec m[IN][IN], o[IN];
    UNROLL for (int b = 0; b < IN; b++) {
        to_input(o, load(x[b] + c, lanes), load(x[IN + b] + c, lanes), load(x[2 * IN + b] + c, lanes),
                 load(x[3 * IN + b] + c, lanes), load(x[4 * IN + b] + c, lanes), load(x[5 * IN + b] + c, lanes));
        UNROLL for (int a = 0; a < IN; a++) m[a][b] = o[a];
    }
    UNROLL for (int a = 0; a < IN; a++) {
        to_input(o, m[a][0], m[a][1], m[a][2], m[a][3], m[a][4], m[a][5]);
        UNROLL for (int b = 0; b < IN; b++) store(v + (a * IN + b) * stride + c, o[b], LANES);
    }
}

/* V of tiles first to first + count: 36 matrices (count, padded). */
static void tiles_in(const plan_t *plan, long first, long count, float *v) {
    long inputs = plan->conv->inputs, full = inputs / LANES * LANES;
    for (long t = first; t < first + count; t++, v += plan->padded) {
        const float *x[POINTS];
        pixels(plan, t, x);
        for (long c = 0; c < full; c += LANES) tile_in(x, c, v, plan->stride, LANES);
        if (full < inputs) tile_in(x, full, v, plan->stride, inputs - full);
    }
}

/* Panels: output channels in groups of PANEL vectors, then what remains in single vectors. */
INLINE long whole_panels(const conv_t *conv) { return conv->outputs / (PANEL * LANES); }
INLINE long panel_vectors(const conv_t *conv, long panel) { return panel < whole_panels(conv) ? PANEL : 1; }
INLINE long panel_start(const conv_t *conv, long panel) {
    long whole = whole_panels(conv);
    return (panel < whole ? panel * PANEL : whole * PANEL + (panel - whole)) * LANES;
}

/* Floats from one point of U to the next: a line more than its size, or 36 of them would share a set of the cache. */
INLINE long matrix(long inputs, long width) { return inputs * width + LINE; }

INLINE void weight_in(float (*taps)[LANES], float *u, long stride) {
    vec m[IN][3], o[IN];
    UNROLL for (int b = 0; b < 3; b++) {
        to_weight(o, load(taps[b], LANES), load(taps[3 + b], LANES), load(taps[6 + b], LANES));
        UNROLL for (int a = 0; a < IN; a++) m[a][b] = o[a];
    }
    UNROLL for (int a = 0; a < IN; a++) {
        to_weight(o, m[a][0], m[a][1], m[a][2]);
        UNROLL for (int b = 0; b < IN; b++) store(u + (a * IN + b) * stride, o[b], LANES);
    }
}

/* Weights of a few input channels and one vector of output channels, read along whichever of the two is dense. */
static void gather(const conv_t *conv, const float *w, long channels, long lanes, float (*taps)[TAPS][LANES]) {
    if (conv->step_out == 1) {
        for (long c = 0; c < channels; c++)
            for (long tap = 0; tap < TAPS; tap++)
                memcpy(taps[c][tap], w + c * conv->step_in + tap * conv->step_tap, lanes * sizeof(float));
        return;
    }
    for (long k = 0; k < lanes; k++)
        for (long tap = 0; tap < TAPS; tap++)
            for (long c = 0; c < channels; c++)
                taps[c][tap][k] = w[k * conv->step_out + tap * conv->step_tap + c * conv->step_in];
}

/* U of one panel, of input channels first to last: 36 matrices (last - first, width of the panel). */
static void weights_in(const conv_t *conv, long panel, long first, long last, float *u) {
    long vectors = panel_vectors(conv, panel), stride = matrix(last - first, vectors * LANES);
    for (long c = first; c < last; c += LINE)
        for (long part = 0; part < vectors; part++) {
            long k = panel_start(conv, panel) + part * LANES;
            long channels = least(LINE, last - c), lanes = least(LANES, conv->outputs - k);
            float taps[LINE][TAPS][LANES] = {0};
            gather(conv, conv->w + c * conv->step_in + k * conv->step_out, channels, lanes, taps);
            float *to = u + ((c - first) * vectors + part) * LANES;
            for (long i = 0; i < channels; i++) weight_in(taps[i], to + i * vectors * LANES, stride);
        }
}

/* M (rows, width) = V (rows, inputs) U (inputs, width), added to what M holds where `more`. */
INLINE void product(int rows, int vectors, const float *v, long padded, const float *u, long inputs, int more,
                    float *m) {
    vec sum[2 * ROWS][PANEL];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int k = 0; k < vectors; k++)
            sum[r][k] = more ? load(m + (r * vectors + k) * LANES, LANES) : (vec){0};
    for (long c = 0; c < inputs; c++, u += vectors * LANES) {
        vec right[PANEL];
        UNROLL for (int k = 0; k < vectors; k++) right[k] = load(u + k * LANES, LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            float left = v[r * padded + c];
            UNROLL for (int k = 0; k < vectors; k++) sum[r][k] += left * right[k];
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int k = 0; k < vectors; k++) store(m + (r * vectors + k) * LANES, sum[r][k], LANES);
}

INLINE void products(int rows, int vectors, const float *v, long count, long padded, const float *u, long inputs,
                     int more, float *m) {
    for (; count >= rows; count -= rows, v += rows * padded, m += rows * vectors * LANES)
        product(rows, vectors, v, padded, u, inputs, more, m);
    switch (count) {
#define CASE(n) case n: if (n < rows) product(n, vectors, v, padded, u, inputs, more, m); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11)
#undef CASE
    }
}

/* Output pixels of one vector of channels of one tile, from 36 vectors `stride` floats apart. */
INLINE void tile_out(const conv_t *conv, const float *m, long stride, long n, long i, long j, long k, long lanes) {
    vec half[OUT][IN], o[OUT];
    UNROLL for (int b = 0; b < IN; b++) {
        const float *p = m + b * stride;
        long row = IN * stride;
        to_output(o, load(p, LANES), load(p + row, LANES), load(p + 2 * row, LANES), load(p + 3 * row, LANES),
                  load(p + 4 * row, LANES), load(p + 5 * row, LANES));
        UNROLL for (int a = 0; a < OUT; a++) half[a][b] = o[a];
    }
    vec bias = conv->bias ? load(conv->bias + k, lanes) : (vec){0};
    UNROLL for (int a = 0; a < OUT; a++) {
        if (i + a >= conv->height) break;
        to_output(o, half[a][0], half[a][1], half[a][2], half[a][3], half[a][4], half[a][5]);
        UNROLL for (int b = 0; b < OUT; b++) {
            if (j + b >= conv->width) break;
            long at = ((n * conv->height + i + a) * conv->width + j + b) * conv->outputs + k;
            vec value = o[b] + bias;
            if (conv->add) value += load(conv->add + at, lanes);
            if (conv->relu) value = where_positive(value, value);
            if (conv->gate) value = where_positive(load(conv->gate + at, lanes), value);
            store(conv->y + at, value, lanes);
        }
    }
}

/* M of one panel and `count` tiles, from input channels first to last. */
static void multiply(const plan_t *plan, long count, const float *v, const float *u, long panel, long first, long last,
                     float *m) {
    long vectors = panel_vectors(plan->conv, panel), width = vectors * LANES, inputs = last - first;
    for (long p = 0; p < POINTS; p++, v += plan->stride, u += matrix(inputs, width), m += matrix(plan->block, width)) {
        if (vectors == PANEL)
            products(ROWS, PANEL, v + first, count, plan->padded, u, inputs, first > 0, m);
        else
            products(12, 1, v + first, count, plan->padded, u, inputs, first > 0, m);
    }
}

static void tiles_out(const plan_t *plan, long first, long count, long panel, const float *m) {
    const conv_t *conv = plan->conv;
    long vectors = panel_vectors(conv, panel), start = panel_start(conv, panel);
    long stride = matrix(plan->block, vectors * LANES);
    for (long t = first; t < first + count; t++)
        for (long part = 0; part < vectors; part++, m += LANES) {
            long k = start + part * LANES, lanes = conv->outputs - k;
            long n = t / (plan->down * plan->across), i = t / plan->across % plan->down, j = t % plan->across;
            if (lanes >= LANES)
                tile_out(conv, m, stride, n, i * OUT, j * OUT, k, LANES);
            else
                tile_out(conv, m, stride, n, i * OUT, j * OUT, k, lanes);
        }
}

INLINE float *panel_weights(const plan_t *plan, long panel) {
    return plan->whole + POINTS * (plan->conv->inputs * panel_start(plan->conv, panel) + panel * LINE);
}

INLINE long block_tiles(const plan_t *plan, long block) {
    return least(plan->block, plan->tiles - block * plan->block);
}

/* Many tiles: all of U first, then block by block of tiles. */
static void unit_weights(const plan_t *plan, long panel, float *scratch) {
    weights_in(plan->conv, panel, 0, plan->conv->inputs, panel_weights(plan, panel));
}

static void unit_block(const plan_t *plan, long block, float *scratch) {
    long first = block * plan->block, count = block_tiles(plan, block);
    float *m = scratch + POINTS * plan->stride;
    tiles_in(plan, first, count, scratch);
    for (long panel = 0; panel < plan->panels; panel++) {
        multiply(plan, count, scratch, panel_weights(plan, panel), panel, 0, plan->conv->inputs, m);
        tiles_out(plan, first, count, panel, m);
    }
}

/* Few tiles: all of V first, then panel by panel of U, each made a few input channels at a time. */
static void unit_tile(const plan_t *plan, long tile, float *scratch) {
    tiles_in(plan, tile, 1, plan->whole + tile * plan->padded);
}

static void unit_panel(const plan_t *plan, long panel, float *scratch) {
    long inputs = plan->conv->inputs;
    float *m = scratch + POINTS * matrix(DEPTH, PANEL * LANES);
    for (long c = 0; c < inputs; c += DEPTH) {
        weights_in(plan->conv, panel, c, least(c + DEPTH, inputs), scratch);
        multiply(plan, plan->tiles, plan->whole, scratch, panel, c, least(c + DEPTH, inputs), m);
    }
    tiles_out(plan, 0, plan->tiles, panel, m);
}

/* Work is cut into units that threads take one after another. Each thread keeps its two buffers until it ends. */
typedef void (*unit_t)(const plan_t *, long, float *);
typedef void (*team_t)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    const plan_t *plan;
    unit_t unit;
    long units, next, scratch, failed;
} work_t;

typedef struct {
    float *floats;
    long size;
} buffer_t;

enum { SCRATCH, WHOLE, BUFFERS };

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static team_t team;

static void release(void *held) {
    for (buffer_t *each = held; each < (buffer_t *)held + BUFFERS; each++) free(each->floats);
    free(held);
}

static void make_key(void) { pthread_key_create(&key, release); }

static float *buffer(int which, long size) {
    pthread_once(&once, make_key);
    buffer_t *held = pthread_getspecific(key);
    if (!held) {
        held = calloc(BUFFERS, sizeof *held);
        if (!held || pthread_setspecific(key, held)) return NULL;
    }
    held += which;
    if (held->size < size) {
        free(held->floats);
        held->size = 0;
        if (posix_memalign((void **)&held->floats, 4 * LINE, size * sizeof(float))) return held->floats = NULL;
        held->size = size;
    }
    return held->floats;
}

static void take_units(void *shared) {
    work_t *work = shared;
    float *scratch = buffer(SCRATCH, work->scratch);
    if (!scratch) {
        __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (;;) {
        long next = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
        if (next >= work->units) return;
        work->unit(work->plan, next, scratch);
    }
}

static long run(const plan_t *plan, unit_t unit, long units, long scratch, long threads) {
    work_t work = {plan, unit, units, 0, scratch, 0};
    threads = least(threads, units);
    if (team && threads > 1)
        team(take_units, &work, threads, 0);
    else
        take_units(&work);
    return work.failed;
}

/* parallel: GOMP_parallel of the OpenMP runtime that torch computes with, or NULL to stay on the calling thread. */
void gossamer_winograd_team(void *parallel) { team = (team_t)parallel; }

/* Returns 0, or 1 where no memory was left. */
long gossamer_winograd_conv(const conv_t *conv, long threads) {
    plan_t plan = {.conv = conv};
    plan.down = (conv->height + OUT - 1) / OUT;
    plan.across = (conv->width + OUT - 1) / OUT;
    plan.tiles = conv->images * plan.down * plan.across;
    plan.padded = round_up(conv->inputs, LANES);
    plan.panels = whole_panels(conv) + (conv->outputs % (PANEL * LANES) + LANES - 1) / LANES;
    int few = plan.tiles < conv->outputs;
    plan.block = few ? plan.tiles : least(TILES, round_up((plan.tiles + threads - 1) / threads, ROWS));
    plan.stride = plan.block * plan.padded + LINE;
    long whole = POINTS * (few ? plan.stride : conv->inputs * round_up(conv->outputs, LANES) + plan.panels * LINE);
    long products = POINTS * matrix(plan.block, PANEL * LANES);
    plan.whole = buffer(WHOLE, whole + plan.padded);
    if (!plan.whole) return 1;
    plan.zeros = plan.whole + whole;
    memset(plan.zeros, 0, plan.padded * sizeof(float));
    if (few)
        return run(&plan, unit_tile, plan.tiles, LINE, threads) ||
               run(&plan, unit_panel, plan.panels, POINTS * matrix(DEPTH, PANEL * LANES) + products, threads);
    long blocks = (plan.tiles + plan.block - 1) / plan.block;
    return run(&plan, unit_weights, plan.panels, LINE, threads) ||
           run(&plan, unit_block, blocks, POINTS * plan.stride + products, threads);
}
