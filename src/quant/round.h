/* round: to the nearest integer, in a form that compilers turn into vectors. */
#ifndef FV_ROUND_H
#define FV_ROUND_H

/* To nearest even for |x| < 2^22. */
static inline float fv_round_even(float x)
{
    const float shift = 12582912.0f; /* 1.5 x 2^23 */
    return (x + shift) - shift;
}

/* lo for NaN. */
static inline float fv_round_clamp(float x, float lo, float hi)
{
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

#endif
