/* How fast are these networks on a device that has no Python? Written by Gossamer @VERSION@.
 *
 *     cc -std=gnu99 -O3 -march=native -ffp-contract=fast -fopenmp @SOURCES@ @FILE@ -o bench
 *     ./bench --name "My board" > board.json
 *
 * (-mcpu=native on ARM; without -fopenmp it runs in one thread.) It prints what `gossamer bench` writes, and
 * `gossamer bench --merge board.json ... -o figure.html` draws it beside other devices. Constants in files of their own
 * are read from the folder in which it is started. It needs POSIX: a clock, processes, temporary files.
 *
 * Two protocols: a batch of random images that is already in memory, and 100 images that are read from a file inside
 * the timed section. Networks take turns within rounds. Speedups are against the fastest network without a zero.
 */
#define _XOPEN_SOURCE 700
/* macOS hides the number of processors from strict POSIX. */
#ifdef __APPLE__
#define _DARWIN_C_SOURCE
#endif
/* A file of images may be longer than a long of 32 bits can say. */
#define _FILE_OFFSET_BITS 64
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

@INCLUDES@

enum { CHANNELS = @CHANNELS@, ROWS = @ROWS@, COLUMNS = @COLUMNS@, CLASSES = @CLASSES@, NETWORKS = @NETWORKS@ };
enum { LOADED = 100, FILED = 3, FEW = 16 << 20, MOST = 16, LONGEST = 1024, LARGEST = 10000 };
static const size_t PIXELS = (size_t)CHANNELS * ROWS * COLUMNS;
static const double SETTLED = 0.05;

struct network {
    const char *name, *kind, *density, *blob;
    long bytes;
    int dense;
    int (*run)(const float *, float *, long, void *, int);
    int (*set_blob)(const void *, size_t);
    size_t (*arena)(int);
};

@CHECKS@
@ARENAS@
static const struct network networks[NETWORKS] = {
@TABLE@
};
static const char counts[] = @COUNTS@;

/* Of this run: what to time, and why a network could not go on. */
static int batches[MOST] = {1, 16, 64}, batch_count = 3, threads_of[MOST] = {1}, thread_count = 1;
static int rounds = 10, repeats = 10, warm_up = 3;
static const char *device, *failed[NETWORKS];

struct fresh {
    double seconds;
    int64_t peak, before;
    int ok;
};

struct timing {
    int network, loading, batch, threads, against;
    double mean, median, p95, *medians, *speedups, speedup;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void give_up(const char *why) {
    fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) give_up("out of memory: name fewer images with --batch, or fewer with --threads");
    return memory;
}

/* Memory. */

static int64_t held(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
#ifdef __APPLE__
    return used.ru_maxrss;
#else
    return 1024 * (int64_t)used.ru_maxrss;
#endif
}

/* Hands a network its constants, which stay in memory. */
static const char *give_blob(const struct network *one) {
    FILE *file;
    long size;
    char *data;
    if (one->set_blob == NULL) return NULL;
    file = fopen(one->blob, "rb");
    if (file == NULL) return "its blob is not in this folder";
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    data = room(size > 0 ? (size_t)size : 1, 1);
    size = (long)fread(data, 1, size > 0 ? (size_t)size : 0, file);
    fclose(file);
    return one->set_blob(data, (size_t)size) == 0 ? NULL : "its blob is not the one that it was exported with";
}

/* What one process needs from nothing to the logits of one image. */
static struct fresh begin(const struct network *one) {
    struct fresh found = {0, 0, 0, 0};
    float *in, *out;
    double started = now();
    found.before = held();
    in = room(PIXELS, sizeof *in);
    out = room(CLASSES, sizeof *out);
    if (give_blob(one) != NULL || one->run(in, out, 1, room(one->arena(1), 1), 1) != 0) return found;
    found.seconds = now() - started;
    found.peak = held();
    found.ok = 1;
    return found;
}

static struct fresh in_a_new_process(const struct network *one) {
    struct fresh found = {0, 0, 0, 0};
    int ends[2];
    pid_t child;
    if (pipe(ends) != 0) return found;
    child = fork();
    if (child == 0) {
        const struct fresh own = begin(one);
        _exit(write(ends[1], &own, sizeof own) == (ssize_t)sizeof own ? 0 : 1);
    }
    close(ends[1]);
    if (child < 0 || read(ends[0], &found, sizeof found) != (ssize_t)sizeof found) found.ok = 0;
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
    return found;
}

/* Images. */

static float pixel(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 24);
}

static FILE *filed(void) {
    FILE *file = tmpfile();
    if (file == NULL) give_up("no temporary file can be written here");
    for (size_t i = 0; i < FILED * LOADED * PIXELS; i++) putc((int)(255 * pixel()), file);
    if (fflush(file) != 0) give_up("no room for a temporary file of images");
    return file;
}

struct setting {
    int loading, batch, threads;
    size_t distinct;
    float *images, *logits;
    unsigned char *read;
    FILE *file;
    void *arenas[NETWORKS];
};

static void load(const struct setting *setting, long number) {
    const size_t count = LOADED * PIXELS;
    fseeko(setting->file, (off_t)(number % FILED) * (off_t)count, SEEK_SET);
    if (fread(setting->read, 1, count, setting->file) != count) give_up("the temporary file of images cannot be read");
    for (size_t i = 0; i < count; i++) setting->images[i] = (float)setting->read[i] / 255;
}

static int call(const struct setting *setting, int which, long number) {
    const float *in = setting->images;
    if (setting->loading) load(setting, number);
    else in += (size_t)number % setting->distinct * (size_t)setting->batch * PIXELS;
    return networks[which].run(in, setting->logits, setting->batch, setting->arenas[which], setting->threads);
}

static struct setting prepared(int loading, int batch, int threads, FILE *file) {
    struct setting made = {loading, batch, threads, 1, NULL, NULL, NULL, file, {NULL}};
    const size_t bytes = sizeof(float) * PIXELS * (size_t)batch;
    if (!loading) made.distinct = FEW / bytes > 1 ? FEW / bytes : 1;
    made.images = room(made.distinct, bytes);
    made.logits = room((size_t)batch * CLASSES, sizeof(float));
    if (loading) made.read = room(LOADED, PIXELS);
    if (!loading)
        for (size_t i = 0; i < made.distinct * (size_t)batch * PIXELS; i++) made.images[i] = pixel();
    for (int i = 0; i < NETWORKS; i++) made.arenas[i] = room(networks[i].arena(threads), 1);
    return made;
}

static void put_away(struct setting *setting) {
    free(setting->images);
    free(setting->logits);
    free(setting->read);
    for (int i = 0; i < NETWORKS; i++) free(setting->arenas[i]);
}

/* Times. */

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *values, int count, double share) {
    double *sorted = room((size_t)count, sizeof *sorted), at = share * (count - 1), found;
    const int low = (int)at, high = low + 1 < count ? low + 1 : low;
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    found = sorted[low] + (at - low) * (sorted[high] - sorted[low]);
    free(sorted);
    return found;
}

/* One turn of one network, the seconds of its calls to `spent`. */
static int turn(const struct setting *setting, int which, int round, double *spent) {
    const double since = now();
    for (long i = 0; i < warm_up || now() - since < SETTLED; i++)
        if (call(setting, which, i) != 0) return 1;
    for (long i = 0; i < repeats; i++) {
        const double started = now();
        if (call(setting, which, (long)round * repeats + i) != 0) return 1;
        spent[i] = now() - started;
    }
    return 0;
}

static struct timing summed(const struct setting *setting, int which, const double *spent) {
    const int calls = rounds * repeats;
    struct timing made = {which, setting->loading, setting->batch, setting->threads, -1, 0, 0, 0, NULL, NULL, 0};
    for (int i = 0; i < calls; i++) made.mean += spent[i] / calls;
    made.median = quantile(spent, calls, 0.5);
    made.p95 = quantile(spent, calls, 0.95);
    made.medians = room((size_t)rounds, sizeof *made.medians);
    for (int i = 0; i < rounds; i++) made.medians[i] = quantile(spent + (size_t)i * (size_t)repeats, repeats, 0.5);
    return made;
}

static void compare(struct timing *made, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (networks[made[i].network].dense && (best < 0 || made[i].median < made[best].median)) best = i;
    if (best < 0) return;
    for (int i = 0; i < count; i++) {
        made[i].against = made[best].network;
        made[i].speedups = room((size_t)rounds, sizeof(double));
        for (int r = 0; r < rounds; r++) made[i].speedups[r] = made[best].medians[r] / made[i].medians[r];
        made[i].speedup = quantile(made[i].speedups, rounds, 0.5);
    }
}

/* All networks in one setting; returns how many went through with it. */
static int timed(const struct setting *setting, struct timing *made) {
    double *spent[NETWORKS];
    int count = 0;
    for (int i = 0; i < NETWORKS; i++) spent[i] = room((size_t)(rounds * repeats), sizeof(double));
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < NETWORKS; i++) {
            const int which = (r + i) % NETWORKS;
            if (failed[which] == NULL && turn(setting, which, r, spent[which] + (size_t)r * (size_t)repeats) != 0)
                failed[which] = "it returned a code that is not 0";
        }
    for (int i = 0; i < NETWORKS; i++) {
        if (failed[i] == NULL) made[count++] = summed(setting, i, spent[i]);
        free(spent[i]);
    }
    compare(made, count);
    for (int i = 0; i < count; i++)
        fprintf(stderr, "%s, %d %s, %d threads: %.3f ms\n", networks[made[i].network].name, made[i].batch,
                made[i].loading ? "with loading" : "in memory", made[i].threads, 1e3 * made[i].median);
    return count;
}

/* What the device is. */

static void first_line(const char *path, const char *key, char *to) {
    char line[LONGEST];
    FILE *file = fopen(path, "r");
    while (file != NULL && to[0] == 0 && fgets(line, sizeof line, file) != NULL) {
        const char *value = key == NULL ? line : strstr(line, key) == line ? strchr(line, ':') : NULL;
        if (value == NULL) continue;
        if (key != NULL) value++;
        while (*value == ' ' || *value == '\t') value++;
        strcpy(to, value);
        to[strcspn(to, "\n")] = 0;
    }
    if (file != NULL) fclose(file);
}

static int processors(void) {
    const long found = sysconf(_SC_NPROCESSORS_ONLN);
    return found < 1 ? 1 : (int)found;
}

static const char *instructions(void) {
#if defined(__AVX512F__)
    return "AVX512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__AVX__)
    return "AVX";
#elif defined(__aarch64__) || defined(__ARM_NEON)
    return "NEON";
#elif defined(__SSE__)
    return "SSE";
#else
    return "scalar";
#endif
}

/* The record. */

static void text(const char *value) {
    putchar('"');
    for (; *value != 0; value++) {
        const unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '\\') putchar('\\');
        putchar(c < 32 || c > 126 ? '?' : c);
    }
    putchar('"');
}

static void numbers(const char *key, const double *values, int count) {
    printf("\"%s\": [", key);
    for (int i = 0; i < count; i++) printf("%s%.9g", i > 0 ? ", " : "", values[i]);
    printf("], ");
}

static void print_device(void) {
    struct utsname system;
    char name[LONGEST] = "", about[4 * LONGEST] = "unknown";
    first_line("/proc/device-tree/model", NULL, name);
    first_line("/proc/cpuinfo", "model name", name);
    if (uname(&system) >= 0) {
        snprintf(about, sizeof about, "%s-%s-%s", system.sysname, system.release, system.machine);
        if (name[0] == 0) snprintf(name, sizeof name, "%s", system.machine);
    }
    printf("\"device\": {\"name\": ");
    text(device != NULL ? device : name);
    printf(", \"cores\": %d, \"memory\": ", processors());
#ifdef _SC_PHYS_PAGES
    printf("%.0f", (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
#else
    printf("null");
#endif
    printf(", \"system\": ");
    text(about);
    printf(", \"instructions\": \"%s\", \"versions\": {\"gossamer\": \"@VERSION@\", \"compiler\": ", instructions());
#ifdef __VERSION__
    text(__VERSION__);
#else
    text("unknown");
#endif
    printf("}, \"energy\": \"not read by this program\"},\n");
}

static void print_entry(const struct network *one, struct fresh fresh) {
    printf("{\"name\": \"%s\", \"kind\": \"%s\", \"bytes\": %ld, \"density\": %s, ", one->name, one->kind, one->bytes,
           one->density);
    if (fresh.ok)
        printf("\"start_up\": %.9g, \"peak\": %" PRId64 ", \"before\": %" PRId64 ", \"failure\": null}", fresh.seconds,
               fresh.peak, fresh.before);
    else printf("\"start_up\": null, \"peak\": null, \"before\": null, \"failure\": \"it did not start\"}");
}

static void print_timing(const struct timing *one) {
    printf("{\"contestant\": \"%s\", \"protocol\": \"%s\", ", networks[one->network].name,
           one->loading ? "loading" : "memory");
    printf("\"batch\": %d, \"threads\": %d, \"calls\": %d, ", one->batch, one->threads, rounds * repeats);
    printf("\"mean\": %.9g, \"median\": %.9g, \"p95\": %.9g, ", one->mean, one->median, one->p95);
    printf("\"throughput\": %.9g, ", one->batch / one->mean);
    numbers("rounds", one->medians, rounds);
    if (one->against >= 0) {
        numbers("speedups", one->speedups, rounds);
        printf("\"against\": \"%s\", \"speedup\": %.9g, \"joules\": null}", networks[one->against].name, one->speedup);
    } else printf("\"against\": null, \"speedups\": null, \"speedup\": null, \"joules\": null}");
}

static void print_all(const struct fresh *fresh, const struct timing *made, int count) {
    int told = 0;
    printf("{\"schema\": \"@SCHEMA@\",\n");
    print_device();
    printf("\"runs_on\": \"cpu\", \"shape\": [%d, %d, %d], ", CHANNELS, ROWS, COLUMNS);
    printf("\"images\": \"random images\",\n\"entries\": [");
    for (int i = 0; i < NETWORKS; i++) {
        printf("%s", i > 0 ? ",\n" : "");
        print_entry(&networks[i], fresh[i]);
    }
    printf("],\n\"missing\": {");
    for (int i = 0; i < NETWORKS; i++) {
        if (failed[i] == NULL) continue;
        printf("%s\"%s\": \"%s\"", told++ > 0 ? ", " : "", networks[i].name, failed[i]);
    }
    printf("},\n\"counts\": %s,\n\"timings\": [", counts);
    for (int i = 0; i < count; i++) {
        printf("%s", i > 0 ? ",\n" : "");
        print_timing(&made[i]);
    }
    printf("]}\n");
}

/* The command line. */

static void refuse(const char *what) {
    fprintf(stderr,
            "bench: %s\nusage: bench [--name DEVICE] [--batch 1,16,64] [--threads 1,4] [--rounds 10] [--repeats 10]\n",
            what);
    exit(2);
}

/* Whole numbers from 1 to LARGEST with commas between them. */
static int listed(const char *given, int *to, int most) {
    int count = 0;
    for (;;) {
        char *stop;
        const long value = strtol(given, &stop, 10);
        if (stop == given || value < 1 || value > LARGEST || count == most)
            refuse("expected whole numbers from 1 to 10,000");
        to[count++] = (int)value;
        if (*stop == 0) return count;
        if (*stop != ',') refuse("expected whole numbers with commas");
        given = stop + 1;
    }
}

static void understand(int words, char **word) {
#ifdef _OPENMP
    if (processors() > 1) threads_of[thread_count++] = processors();
#endif
    for (int i = 1; i < words; i += 2) {
        const char *flag = word[i], *value = i + 1 < words ? word[i + 1] : NULL;
        if (value == NULL) refuse("a flag or its value is missing");
        if (strcmp(flag, "--name") == 0) device = value;
        else if (strcmp(flag, "--batch") == 0) batch_count = listed(value, batches, MOST);
        else if (strcmp(flag, "--threads") == 0) thread_count = listed(value, threads_of, MOST);
        else if (strcmp(flag, "--rounds") == 0) listed(value, &rounds, 1);
        else if (strcmp(flag, "--repeats") == 0) listed(value, &repeats, 1);
        else refuse("there is no such flag");
    }
#ifndef _OPENMP
    for (int i = 0; i < thread_count; i++)
        if (threads_of[i] != 1) refuse("compiled without -fopenmp it has one thread: leave --threads out");
#endif
}

int main(int words, char **word) {
    struct fresh fresh[NETWORKS];
    struct timing *made;
    FILE *file;
    int count = 0;
    understand(words, word);
    for (int i = 0; i < NETWORKS; i++) fresh[i] = in_a_new_process(&networks[i]);
    for (int i = 0; i < NETWORKS; i++) failed[i] = give_blob(&networks[i]);
    made = room((size_t)(thread_count * (batch_count + 1) * NETWORKS), sizeof *made);
    file = filed();
    for (int t = 0; t < thread_count; t++)
        for (int b = 0; b <= batch_count; b++) {
            const int loading = b == batch_count;
            struct setting setting = prepared(loading, loading ? LOADED : batches[b], threads_of[t], file);
            count += timed(&setting, made + count);
            put_away(&setting);
        }
    fclose(file);
    print_all(fresh, made, count);
    for (int i = 0; i < count; i++) {
        free(made[i].medians);
        free(made[i].speedups);
    }
    free(made);
    return count > 0 ? 0 : 1;
}
