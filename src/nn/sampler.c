/* Logits to a token. What each step does and in which order is transformers' (generation/
 * logits_process.py); only the random numbers are our own.
 *
 *     copy of the logits, forbidden ids at -infinity, bias added, what the mask lacks at -infinity
 *     penalty       once for each id in the history: score / p if positive, score * p if not
 *     temperature   0: the largest wins, the lowest id among equals; else scores / T
 *     top-k         drops what is smaller than the k-th largest; ties with it stay
 *     top-p         the fewest of the largest whose probabilities reach p
 *     min-p         drops what is less than p times as probable as the best
 *     draw          xoshiro256** (Blackman, Vigna 2018), seeded through splitmix64
 *
 * Nothing sorts the vocabulary: top-k keeps a heap of k scores, top-p takes from a heap only what
 * it needs. */
#include "nn/sampler.h"

#include <math.h>
#include <string.h>

typedef struct candidate {
    double weight; /* exp(score): 1 for the best */
    float score;   /* (logit - largest logit) / T, so 0 for the best */
    int32_t id;
} candidate;

struct fv_sampler {
    fv_sampler_options options;
    size_t n_rows, n_tokens;
    size_t n_forbidden;
    int32_t *forbidden; /* [n_tokens] */
    float *logits;      /* [n_tokens] working copy */
    uint8_t *seen;      /* [n_tokens] 1 while an id is in the history being walked, 2 forbidden */
    float *largest;     /* [n_tokens] heap of top-k */
    candidate *candidates; /* [n_tokens] */
    uint32_t *mask;        /* [(n_tokens + 31) / 32] bits */
    uint64_t state[4];
    fv_token_logprob top[FV_SAMPLER_TOP]; /* of the last choice */
    size_t n_top;
    float logprob;
};

/* ---- making one ---- */

void fv_sampler_options_default(fv_sampler_options *options)
{
    *options = (fv_sampler_options){ .top_p = 1, .repetition_penalty = 1 };
}

static fv_status check(bool good, const char *name, double found, const char *expected,
                       fv_error *err)
{
    return good ? FV_OK
                : fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is %g, expected %s", name, found, expected);
}

static fv_status check_options(const fv_sampler_options *o, fv_error *err)
{
    FV_TRY(check(o->temperature >= 0 && isfinite(o->temperature), "temperature",
                 (double)o->temperature, "0 or more", err));
    FV_TRY(check(o->top_k >= 0, "top_k", o->top_k, "0 or more", err));
    FV_TRY(check(o->top_p >= 0 && o->top_p <= 1, "top_p", (double)o->top_p, "a number in [0, 1]",
                 err));
    FV_TRY(check(o->min_p >= 0 && o->min_p <= 1, "min_p", (double)o->min_p, "a number in [0, 1]",
                 err));
    FV_TRY(check(o->repetition_penalty > 0 && isfinite(o->repetition_penalty), "repetition_penalty",
                 (double)o->repetition_penalty, "more than 0", err));
    return check(o->n_top >= 0 && o->n_top <= FV_SAMPLER_TOP, "n_logprobs", o->n_top, "0 to 20",
                 err);
}

fv_status fv_sampler_new(fv_sampler **out, const fv_sampler_options *options, size_t n_rows,
                         size_t n_tokens, fv_error *err)
{
    fv_sampler_options o;

    *out = NULL;
    fv_sampler_options_default(&o);
    if (options)
        o = *options;
    FV_TRY(check_options(&o, err));
    if (n_rows == 0 || n_tokens == 0 || n_rows > INT32_MAX)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%zu rows of logits and %zu tokens: nothing to choose from", n_rows,
                       n_tokens);
    n_tokens = FV_MIN(n_tokens, n_rows);

    fv_sampler *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "sampler");
    s->options = o;
    s->n_rows = n_rows;
    s->n_tokens = n_tokens;
    s->forbidden = fv_alloc(n_tokens, sizeof *s->forbidden);
    s->logits = fv_alloc(n_tokens, sizeof *s->logits);
    s->seen = fv_alloc_zero(n_tokens, sizeof *s->seen);
    s->largest = fv_alloc(n_tokens, sizeof *s->largest);
    s->candidates = fv_alloc(n_tokens, sizeof *s->candidates);
    s->mask = fv_alloc((n_tokens + 31) / 32, sizeof *s->mask);
    if (!s->forbidden || !s->logits || !s->seen || !s->largest || !s->candidates || !s->mask) {
        fv_sampler_free(s);
        return fv_fail_memory(err, n_tokens * 29, "sampler");
    }
    s->logprob = NAN;
    fv_sampler_seed(s, o.seed);
    *out = s;
    return FV_OK;
}

void fv_sampler_free(fv_sampler *s)
{
    if (!s)
        return;
    fv_free(s->forbidden);
    fv_free(s->logits);
    fv_free(s->seen);
    fv_free(s->largest);
    fv_free(s->candidates);
    fv_free(s->mask);
    fv_free(s);
}

fv_status fv_sampler_set(fv_sampler *s, const fv_sampler_options *options, fv_error *err)
{
    FV_TRY(check_options(options, err));
    s->options = *options;
    s->n_top = 0;
    s->logprob = NAN;
    fv_sampler_seed(s, options->seed);
    return FV_OK;
}

void fv_sampler_forbid(fv_sampler *s, int32_t id)
{
    if (id < 0 || (size_t)id >= s->n_tokens || s->seen[id])
        return;
    s->seen[id] = 2;
    s->forbidden[s->n_forbidden++] = id;
}

/* ---- random numbers ---- */

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

void fv_sampler_seed(fv_sampler *s, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        s->state[i] = z ^ z >> 31;
    }
}

/* In [0, 1), 53 bits. */
static double uniform(fv_sampler *s)
{
    uint64_t *x = s->state, result = rotate(x[1] * 5, 7) * 9, t = x[1] << 17;

    x[2] ^= x[0];
    x[3] ^= x[1];
    x[1] ^= x[2];
    x[0] ^= x[3];
    x[2] ^= t;
    x[3] = rotate(x[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* ---- steps ---- */

static void penalize(fv_sampler *s, const int32_t *history, size_t n_history)
{
    float penalty = s->options.repetition_penalty;

    for (size_t i = 0; i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || (size_t)id >= s->n_tokens || s->seen[id])
            continue;
        s->seen[id] = 1;
        s->logits[id] = s->logits[id] < 0 ? s->logits[id] * penalty : s->logits[id] / penalty;
    }
    for (size_t i = 0; i < n_history; i++)
        if (history[i] >= 0 && (size_t)history[i] < s->n_tokens && s->seen[history[i]] == 1)
            s->seen[history[i]] = 0;
}

static void apply_bias(fv_sampler *s)
{
    for (size_t i = 0; i < s->options.n_bias; i++)
        if ((size_t)s->options.bias[i].id < s->n_tokens)
            s->logits[s->options.bias[i].id] += s->options.bias[i].bias;
}

/* The bits of what can be chosen go to the caller, who clears some. */
static void apply_mask(fv_sampler *s)
{
    size_t n_words = (s->n_tokens + 31) / 32;
    memset(s->mask, 0, n_words * sizeof *s->mask);
    for (size_t i = 0; i < s->n_tokens; i++)
        s->mask[i / 32] |= (uint32_t)(s->logits[i] > -INFINITY) << i % 32;
    s->options.mask(s->options.mask_user, s->mask, s->n_tokens);
    for (size_t i = 0; i < s->n_tokens; i++)
        if (!(s->mask[i / 32] >> i % 32 & 1))
            s->logits[i] = -INFINITY;
}

/* log sum exp of the working copy, whose largest is max. A NaN counts for nothing. */
static double log_total(const fv_sampler *s, float max)
{
    double total = 0;
    for (size_t i = 0; i < s->n_tokens; i++)
        if (s->logits[i] > -INFINITY)
            total += exp((double)s->logits[i] - (double)max);
    return (double)max + log(total);
}

/* The best n_top into s->top, best first, the lowest id first among equals. */
static void list_top(fv_sampler *s, double total)
{
    size_t most = (size_t)s->options.n_top;
    s->n_top = 0;
    for (size_t i = 0; i < s->n_tokens; i++) {
        float x = s->logits[i];
        if (!(x > -INFINITY) || (s->n_top == most && !(x > s->top[most - 1].logprob)))
            continue;
        size_t at = s->n_top < most ? s->n_top++ : most - 1;
        for (; at > 0 && x > s->top[at - 1].logprob; at--)
            s->top[at] = s->top[at - 1];
        s->top[at] = (fv_token_logprob){ (int32_t)i, x };
    }
    for (size_t i = 0; i < s->n_top; i++)
        s->top[i].logprob = (float)((double)s->top[i].logprob - total);
}

/* The largest, -infinity when there is none; a NaN compares false and so never wins. Lanes let the
 * compiler use vector maxima. */
static float largest_of(const float *x, size_t n)
{
    enum { LANES = 16 };
    float lane[LANES], max = -INFINITY;
    size_t i = 0;

    for (int k = 0; k < LANES; k++)
        lane[k] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] = x[i + (size_t)k] > lane[k] ? x[i + (size_t)k] : lane[k];
    for (int k = 0; k < LANES; k++)
        max = lane[k] > max ? lane[k] : max;
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* Scores and ids of what can be drawn, in the order of ids. What is e^-40 times as probable as the
 * best is left out: all of it together is less than 1e-12 of the probability. */
static size_t collect(fv_sampler *s, float max)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n_tokens; i++) {
        float score = (s->logits[i] - max) / s->options.temperature;
        if (score >= -40) /* false for a NaN */
            s->candidates[n++] = (candidate){ 0, score, (int32_t)i };
    }
    return n;
}

static void sift_down_float(float *heap, size_t n, float value)
{
    size_t i = 0, child;

    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= value)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
}

/* Keeps the candidates that are not smaller than the k-th largest: the k largest scores seen so far
 * stand in a heap with the smallest on top. */
static size_t keep_top_k(fv_sampler *s, size_t n)
{
    size_t k = (size_t)s->options.top_k, filled = 0, kept = 0;
    float *heap = s->largest;

    if (k == 0 || k >= n)
        return n;
    for (size_t i = 0; i < n; i++) {
        float score = s->candidates[i].score;
        if (filled < k) {
            size_t at = filled++;
            for (; at > 0 && score < heap[(at - 1) / 2]; at = (at - 1) / 2)
                heap[at] = heap[(at - 1) / 2];
            heap[at] = score;
        } else if (score > heap[0]) {
            sift_down_float(heap, k, score);
        }
    }
    for (size_t i = 0; i < n; i++)
        if (s->candidates[i].score >= heap[0])
            s->candidates[kept++] = s->candidates[i];
    return kept;
}

static bool better(candidate a, candidate b)
{
    return a.score != b.score ? a.score > b.score : a.id < b.id;
}

static void sift_down(candidate *heap, size_t n, size_t i)
{
    candidate value = heap[i];
    size_t child;

    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && better(heap[child + 1], heap[child]))
            child++;
        if (!better(heap[child], value))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
}

/* Fills the weights; returns their sum. */
static double weigh(candidate *c, size_t n)
{
    double total = 0;

    for (size_t i = 0; i < n; i++)
        total += c[i].weight = exp((double)c[i].score);
    return total;
}

/* Moves the best to the end of the array, one by one, until they reach top_p; gives back the first
 * of them. At least one is taken. */
static candidate *keep_top_p(fv_sampler *s, size_t *n, double total)
{
    candidate *heap = s->candidates;
    size_t left = *n;
    double sum = 0;

    if (s->options.top_p >= 1)
        return heap;
    for (size_t i = left / 2; i-- > 0;)
        sift_down(heap, left, i);
    do {
        candidate best = heap[0];
        heap[0] = heap[--left];
        if (left > 0)
            sift_down(heap, left, 0);
        heap[left] = best;
        sum += best.weight;
    } while (left > 0 && sum < (double)s->options.top_p * total);
    *n -= left;
    return heap + left;
}

static size_t keep_min_p(const fv_sampler *s, candidate *c, size_t n)
{
    size_t kept = 0;

    if (s->options.min_p <= 0)
        return n;
    for (size_t i = 0; i < n; i++)
        if (c[i].weight >= (double)s->options.min_p)
            c[kept++] = c[i];
    return kept;
}

static int32_t draw(fv_sampler *s, const candidate *c, size_t n)
{
    double total = 0, at;

    for (size_t i = 0; i < n; i++)
        total += c[i].weight;
    at = uniform(s) * total;
    for (size_t i = 0; i + 1 < n; i++) {
        at -= c[i].weight;
        if (at < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

/* ---- all of it ---- */

static void take_logits(fv_sampler *s, const float *logits)
{
    memcpy(s->logits, logits, s->n_tokens * sizeof *logits);
    for (size_t i = 0; i < s->n_forbidden; i++)
        s->logits[s->forbidden[i]] = -INFINITY;
}

static size_t first_of(const fv_sampler *s, float max)
{
    size_t best = 0;
    while (s->logits[best] != max)
        best++;
    return best;
}

static void pick(fv_sampler *s, float max, int32_t *id)
{
    if (s->options.temperature == 0 || max == INFINITY) {
        *id = (int32_t)first_of(s, max);
        return;
    }
    size_t n = keep_top_k(s, collect(s, max));
    candidate *c = keep_top_p(s, &n, weigh(s->candidates, n));
    n = keep_min_p(s, c, n);
    *id = draw(s, c, n);
}

fv_status fv_sampler_pick(fv_sampler *s, const float *logits, const int32_t *history,
                          size_t n_history, int32_t *id, fv_error *err)
{
    take_logits(s, logits);
    apply_bias(s);
    if (s->options.mask)
        apply_mask(s);
    if (s->options.repetition_penalty != 1)
        penalize(s, history, n_history);

    float max = largest_of(s->logits, s->n_tokens);
    if (max == -INFINITY)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "no token can be chosen: all %zu logits are -infinity or NaN", s->n_tokens);
    double total = 0;
    if (s->options.n_top) {
        total = log_total(s, max);
        list_top(s, total);
    }
    pick(s, max, id);
    if (s->options.n_top)
        s->logprob = (float)((double)s->logits[*id] - total);
    if (s->options.chosen)
        s->options.chosen(s->options.mask_user, *id);
    return FV_OK;
}

float fv_sampler_logprob(const fv_sampler *s) { return s->logprob; }

const fv_token_logprob *fv_sampler_top(const fv_sampler *s, size_t *n)
{
    *n = s->n_top;
    return s->n_top ? s->top : NULL;
}

double fv_sampler_score(fv_sampler *s, const float *logits, int32_t id, bool *greedy)
{
    take_logits(s, logits);
    float max = largest_of(s->logits, s->n_tokens);
    *greedy = max > -INFINITY && (int32_t)first_of(s, max) == id;
    return id >= 0 && (size_t)id < s->n_tokens && s->logits[id] > -INFINITY
               ? (double)s->logits[id] - log_total(s, max)
               : -INFINITY;
}
