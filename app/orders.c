/* This file runs orders on threads that nobody joins: a count says when the last has ended. See
 * orders.h. */
#include "app/orders.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

struct cp_orders {
    int most;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended;
    int running;
    bool ending;
};

typedef struct order {
    cp_orders *orders;
    void (*fn)(void *arg);
    void *arg;
} order;

cp_orders *cp_orders_new(int most)
{
    cp_orders *o = cp_xcalloc(1, sizeof *o);
    o->most = most;
    pthread_mutex_init(&o->lock, NULL);
    cp_clock_cond_init(&o->ended);
    return o;
}

static void leave(cp_orders *o)
{
    pthread_mutex_lock(&o->lock);
    o->running--;
    pthread_cond_broadcast(&o->ended);
    pthread_mutex_unlock(&o->lock);
}

static void *obey(void *arg)
{
    order *d = arg;
    cp_orders *o = d->orders;
    pthread_setname_np(pthread_self(), "order");
    d->fn(d->arg);
    free(d);
    leave(o);
    return NULL;
}

bool cp_orders_give(cp_orders *o, void (*fn)(void *arg), void *arg)
{
    pthread_t thread;
    pthread_mutex_lock(&o->lock);
    bool taken = !o->ending && o->running < o->most;
    o->running += taken;
    pthread_mutex_unlock(&o->lock);
    if (!taken) {
        return false;
    }
    order *d = cp_xcalloc(1, sizeof *d);
    *d = (order){o, fn, arg};
    if (pthread_create(&thread, NULL, obey, d) != 0) {
        free(d);
        leave(o);
        return false;
    }
    pthread_detach(thread);
    return true;
}

bool cp_orders_end(cp_orders *o, int ms)
{
    struct timespec until = cp_clock_after(ms);
    int rc = 0;
    pthread_mutex_lock(&o->lock);
    o->ending = true;
    while (o->running > 0 && rc == 0) {
        rc = pthread_cond_timedwait(&o->ended, &o->lock, &until);
    }
    bool none = o->running == 0;
    pthread_mutex_unlock(&o->lock);
    return none;
}

void cp_orders_free(cp_orders *o)
{
    if (!o) {
        return;
    }
    CP_ASSERT(o->ending && o->running == 0);
    pthread_mutex_destroy(&o->lock);
    pthread_cond_destroy(&o->ended);
    free(o);
}
