static float *align(void *arena) { return (float *)(((uintptr_t)arena + 63) & ~(uintptr_t)63); }

static int misplaced(const void *p) { return p == NULL || (uintptr_t)p % sizeof(float) != 0; }

/* How many threads one image is worth: they wait for one another at every layer. */
enum { SHARE_ONE = @SHARED@ };

/* All images: whole rounds of blocks with a thread each, then blocks and single images that all threads share. */
static void network(float *m, const float *in, float *out, long n, long part, long parts) {
    /* In 64 bits: a long may have 32, too few for the floats of all images or threads. */
    const int64_t size_in = @CHANNELS@L * @ROWS@L * @COLUMNS@L, size_out = @CLASSES@L, room = @BLOCK@L;
    const long rest = n % UNIT, blocks = n / UNIT + (rest > @SINGLES@), apart = blocks / parts * parts;
    for (long b = 0; b < blocks; b++) {
        const float *x = in + b * UNIT * size_in;
        float *y = out + b * UNIT * size_out;
        const long count = n - b * UNIT < UNIT ? n - b * UNIT : UNIT;
        if (b < apart && b % parts == part) block(m + part * room, x, y, count, 0, 1);
        if (b == apart) meet(parts);
        if (b >= apart) block(m, x, y, count, part, parts);
    }
    if (blocks == apart) meet(parts);
    for (long i = blocks * UNIT; i < n; i++) {
        if (SHARE_ONE > 1) single(m, in + i * size_in, out + i * size_out, 1, part, parts);
        else if (part == 0) single(m, in + i * size_in, out + i * size_out, 1, 0, 1);
    }
}

static int threads_at_most(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static void all_threads(float *m, const float *in, float *out, long n, int threads) {
#ifdef _OPENMP
    if (n <= @SINGLES@ && threads > SHARE_ONE) threads = SHARE_ONE;
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        network(m, in, out, n, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    (void)threads;
    network(m, in, out, n, 0, 1);
}

int @NAME@_run_threads(const float *in, float *out, long n, void *arena, int threads) {
    if (misplaced(in) || misplaced(out) || arena == NULL || n < 1 || threads < 1) return @UPPER@_BAD_ARGUMENT;
    if (!ready()) return @UPPER@_NO_BLOB;
    all_threads(align(arena), in, out, n, threads);
    return @UPPER@_OK;
}

int @NAME@_run_arena(const float *in, float *out, long n, void *arena) {
    return @NAME@_run_threads(in, out, n, arena, threads_at_most());
}

int @NAME@_run(const float *in, float *out) {
    static float arena[@SINGLE@ + LINE];
    if (misplaced(in) || misplaced(out)) return @UPPER@_BAD_ARGUMENT;
    if (!ready()) return @UPPER@_NO_BLOB;
    all_threads(align(arena), in, out, 1, threads_at_most());
    return @UPPER@_OK;
}
