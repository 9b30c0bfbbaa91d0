/* Which layers share a page: the shapes of real models, and those that no number of layers divides.
 */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "model/builder.h"

#include <string.h>

typedef struct shape {
    const char *name;
    int n_layers;
    int period;        /* every so many layers one is full, the others window; 0: all full */
    int full, window;  /* layers */
    int per_page;      /* expected */
    int n_groups;      /* paged ones, expected */
    int empty, places; /* of a page of each group together */
} shape;

/* Waste of a model: empty / places of short sequences; of long ones what full groups leave empty.
 */
static const shape shapes[] = {
    {"SmolLM2 135M", 30, 0, 30, 0, 30, 1, 0, 30},
    {"gemma-3 270m", 18, 6, 3, 15, 3, 6, 0, 18},
    {"gemma-3 1b", 26, 6, 4, 22, 2, 13, 0, 26},
    {"gemma-3 4b", 34, 6, 5, 29, 5, 7, 1, 35}, /* 2.9 % */
    {"gemma-3 12b", 48, 6, 8, 40, 8, 6, 0, 48},
    {"gemma-3 27b", 62, 6, 10, 52, 5, 13, 3, 65}, /* 4.6 % */
    {"alternating", 24, 2, 12, 12, 12, 2, 0, 24},
    {"13 and 67", 80, -1, 13, 67, 14, 6, 4, 84}, /* 4.8 %, of long sequences 7.1 % */
    {"1 and 39", 40, -1, 1, 39, 3, 14, 2, 42},
    {"windows only", 31, -1, 0, 31, 31, 1, 0, 31},
    {"one layer", 1, 0, 1, 0, 1, 1, 0, 1},
    {"251 and 261", 512, -1, 251, 261, 0, 0, 0, 0}, /* primes: whatever the rule gives */
};

static void set_layers(cp_model_params *p, const shape *s)
{
    p->pub.n_layers = s->n_layers;
    p->pub.d_model = 64;
    p->window = 512;
    for (int i = 0; i < s->n_layers; i++) {
        bool full = s->period < 0    ? i < s->full
                    : s->period == 0 ? true
                                     : i % s->period == s->period - 1;
        p->layer[i] = (cp_layer_params){.n_heads = 2,
                                        .n_kv = 1,
                                        .d_ff = 8,
                                        .window = !full,
                                        .k_dim = 32,
                                        .v_dim = 32,
                                        .kv_from = i};
    }
}

/* Window layers with so many KV heads of so many dims, full ones with others; the last `shared`
 * layers read the cache of the last earlier layer of their kind. */
static void set_heads(cp_model_params *p, int n_kv, int dim, int full_n_kv, int full_dim,
                      int shared)
{
    int last[2] = {-1, -1}, n = p->pub.n_layers;
    for (int i = 0; i < n; i++) {
        cp_layer_params *l = &p->layer[i];
        l->n_kv = l->window ? n_kv : full_n_kv;
        l->k_dim = l->v_dim = l->window ? dim : full_dim;
        l->kv_from = i < n - shared ? i : last[l->window];
        last[l->window] = l->kv_from;
    }
}

/* Every layer has a place of its own in a group of its kind, or another's; what fills pages of one
 * size. */
static void check_places(const cp_program *g, const cp_model_params *p, int (*place)[2])
{
    static bool taken[CP_MAX_GROUPS][CP_MAX_LAYERS];
    memset(taken, 0, sizeof taken);
    for (int i = 0; i < p->pub.n_layers; i++) {
        const cp_kv_group *grp = &g->groups[place[i][0]];
        assert_in_range(place[i][0], 0, g->n_groups - 1);
        assert_in_range(place[i][1], 0, grp->n_layers - 1);
        assert_int_equal(taken[place[i][0]][place[i][1]], p->layer[i].kv_from != i);
        assert_memory_equal(place[i], place[p->layer[i].kv_from], sizeof place[i]);
        taken[place[i][0]][place[i][1]] = true;
        assert_int_equal(grp->kind, p->layer[i].mixer == CP_MIXER_SHORTCONV ? CP_GROUP_STATE
                                    : p->layer[i].window                    ? CP_GROUP_WINDOW
                                                                            : CP_GROUP_FULL);
        assert_int_equal(grp->window, p->layer[i].window ? p->window : 0);
    }
    for (int k = 0; k < g->n_groups; k++) {
        assert_true(taken[k][0]); /* no group without a layer */
        const cp_kv_group one = {.n_layers = 1,
                                 .n_kv = g->groups[k].n_kv,
                                 .k_dim = g->groups[k].k_dim,
                                 .v_dim = g->groups[k].v_dim};
        size_t page = cp_program_page_bytes(g, 32), fill = cp_kv_page_bytes(&g->groups[k], 32);
        if (g->groups[k].kind != CP_GROUP_STATE)
            assert_true(fill <= page && fill + cp_kv_page_bytes(&one, 32) > page);
    }
}

static void layers_of_real_models_waste_little(void **state)
{
    (void)state;
    static cp_model_params p;
    static int place[CP_MAX_LAYERS][2];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        cp_program g = {0};
        cp_err err;
        memset(&p, 0, sizeof p);
        set_layers(&p, s);
        assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_OK);
        check_places(&g, &p, place);
        int size = g.groups[0].n_layers, places = size * g.n_groups;
        print_message(
            "%-13s %3d full %3d window: %2d groups of %3d layers, %d of %d places empty\n", s->name,
            s->full, s->window, g.n_groups, size, places - s->n_layers, places);
        assert_in_range(g.n_groups, 1, CP_PAGED_GROUPS);
        if (s->per_page == 0)
            continue;
        assert_int_equal(size, s->per_page);
        assert_int_equal(g.n_groups, s->n_groups);
        assert_int_equal(places, s->places);
        assert_int_equal(places - s->n_layers, s->empty);
    }
}

/* Of all pages that a short sequence holds, and of those of full layers, the share that is empty.
 */
static void shares(const cp_program *g, const cp_model_params *p, double *brief, double *lasting)
{
    size_t used[2] = {0}, page = cp_program_page_bytes(g, 32), pages[2] = {0};
    for (int i = 0; i < p->pub.n_layers; i++) {
        const cp_layer_params *l = &p->layer[i];
        const cp_kv_group one = {
            .n_layers = 1, .n_kv = l->n_kv, .k_dim = l->k_dim, .v_dim = l->v_dim};
        used[l->window] += l->kv_from == i ? cp_kv_page_bytes(&one, 32) : 0;
    }
    for (int k = 0; k < g->n_groups; k++)
        pages[g->groups[k].kind == CP_GROUP_WINDOW] += page;
    *brief = 1.0 - (double)(used[0] + used[1]) / (double)(pages[0] + pages[1]);
    *lasting = 1.0 - (double)used[0] / (double)pages[0];
}

/* Full and window layers of different sizes: the shapes of Gemma 4. */
static void layers_of_two_sizes_share_pages(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n_layers, period, n_kv, full_n_kv, shared, n_groups, full, window; /* places a page */
        int empty; /* thousandths of a short sequence's pages */
    } rows[] = {
        {"E2B", 35, 5, 1, 1, 20, 3, 3, 6, 0},
        {"E4B", 42, 6, 2, 2, 18, 7, 2, 4, 0},
        {"31B", 60, 6, 16, 4, 0, 11, 10, 5, 0},
        {"26B-A4B", 30, 6, 8, 2, 0, 10, 6, 3, 83},
    };
    static cp_model_params p;
    static int place[CP_MAX_LAYERS][2];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cp_program g = {0};
        cp_err err;
        double brief, lasting;
        memset(&p, 0, sizeof p);
        set_layers(&p, &(shape){.n_layers = rows[i].n_layers, .period = rows[i].period});
        set_heads(&p, rows[i].n_kv, 256, rows[i].full_n_kv, 512, rows[i].shared);
        assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_OK);
        check_places(&g, &p, place);
        shares(&g, &p, &brief, &lasting);
        print_message("%-8s %2d groups, full %2d and window %2d layers a page; empty: %.1f %%, of "
                      "full pages %.1f %%\n",
                      rows[i].name, g.n_groups, g.groups[0].n_layers,
                      g.groups[g.n_groups - 1].n_layers, 100 * brief, 100 * lasting);
        assert_int_equal(g.n_groups, rows[i].n_groups);
        assert_int_equal(g.groups[0].n_layers, rows[i].full);
        assert_int_equal(g.groups[g.n_groups - 1].n_layers, rows[i].window);
        assert_int_equal((int)(1000 * brief), rows[i].empty);
    }
}

static int places(int full, int window)
{
    cp_layer_class c[2];
    int n = 0;
    const cp_kv_group like = {.n_kv = 2, .k_dim = 32, .v_dim = 32};
    for (int w = 0; w < 2; w++) {
        if (w ? window : full) {
            c[n] = (cp_layer_class){like, w ? window : full};
            c[n++].like.kind = w ? CP_GROUP_WINDOW : CP_GROUP_FULL;
        }
    }
    cp_layers_per_page(c, n, CP_PAGED_GROUPS);
    assert_int_equal(c[0].like.n_layers, c[n - 1].like.n_layers);
    return c[0].like.n_layers;
}

/* Whatever the counts: few groups, and no worse than one full and one window group. */
static void any_counts_find_a_size(void **state)
{
    (void)state;
    for (int full = 0; full <= 90; full++) {
        for (int window = full == 0; window <= 90; window++) {
            int l = places(full, window);
            assert_in_range(l, 1, full > window ? full : window);
            assert_in_range((full + l - 1) / l + (window + l - 1) / l, 1, CP_PAGED_GROUPS);
            if (full == 0 || window == 0)
                assert_int_equal(l, full + window);
            if (full == window)
                assert_int_equal(l, full);
        }
    }
}

/* lfm2: ten convolutions and six attention layers. */
static void recurrent_layers_are_a_group_of_their_own(void **state)
{
    (void)state;
    static cp_model_params p;
    static int place[CP_MAX_LAYERS][2];
    cp_program g = {0};
    cp_err err;
    shape s = {.n_layers = 16, .full = 16};
    memset(&p, 0, sizeof p);
    set_layers(&p, &s);
    p.l_cache = 3;
    for (int i = 0; i < 16; i++) {
        if (i % 3 != 2 && i < 15)
            p.layer[i].mixer = CP_MIXER_SHORTCONV;
    }
    assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_OK);
    check_places(&g, &p, place);
    assert_int_equal(g.n_groups, 2);
    assert_int_equal(g.groups[0].n_layers, 6);
    assert_int_equal(g.groups[1].kind, CP_GROUP_STATE);
    assert_int_equal(g.groups[1].n_layers, 10);
    assert_int_equal(g.groups[1].state_bytes, 2 * 64 * sizeof(float));
}

/* KV heads that differ within a kind are ways of their own; too many ways are refused. */
static void ways_to_cache(void **state)
{
    (void)state;
    static cp_model_params p;
    static int place[CP_MAX_LAYERS][2];
    cp_program g = {0};
    cp_err err;
    shape s = {.n_layers = 4, .full = 4};
    memset(&p, 0, sizeof p);
    set_layers(&p, &s);
    p.layer[2].n_kv = 2;
    assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_OK);
    check_places(&g, &p, place);
    assert_int_equal(g.n_groups, 2); /* 3 places of a page, and 1 of twice the width */
    s = (shape){.n_layers = 40};
    for (int ways = 16; ways <= 40; ways++) { /* at least one group each */
        memset(&p, 0, sizeof p);
        set_layers(&p, &s);
        for (int i = 0; i < 40; i++)
            p.layer[i].n_kv = i % ways + 1;
        assert_int_equal(cp_layer_groups(&g, &p, place, &err),
                         ways <= CP_PAGED_GROUPS ? CP_OK : CP_UNSUPPORTED);
    }
    for (int i = 0; i < 4; i++)
        p.layer[i].mixer = CP_MIXER_SHORTCONV;
    assert_int_equal(cp_layer_groups(&g, &p, place, &err), CP_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_of_real_models_waste_little),
        cmocka_unit_test(any_counts_find_a_size),
        cmocka_unit_test(recurrent_layers_are_a_group_of_their_own),
        cmocka_unit_test(layers_of_two_sizes_share_pages),
        cmocka_unit_test(ways_to_cache),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
