/* cond: waiting for a change, but not for ever, by a clock that nobody sets. */
#ifndef FV_COND_H
#define FV_COND_H

#include <pthread.h>

#include "base/base.h"

/* For pthread_cond_destroy. */
void fv_cond_init(pthread_cond_t *cond);
/* pthread_cond_wait, at most until fv_now_ms() is until_ms: false when it is. Wakes up for nothing
 * now and then, as that does. cond is of fv_cond_init. */
bool fv_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, double until_ms);

#endif
