/*
 * plant: bugs that test builds switch on by number to see the simulation turn red.
 *
 * CP_PLANTED(n) is the constant 0 everywhere but in objects compiled with -DCP_PLANTS, which
 * tests/sim links together with its own definition of cp_plant. Each number belongs to one
 * invariant of docs/INVARIANTS.md: n for kv-n, 100 + n for sched-n.
 */
#ifndef CP_KV_CACHE_PLANT_H
#define CP_KV_CACHE_PLANT_H

#ifdef CP_PLANTS
extern int cp_plant;
#define CP_PLANTED(n) (cp_plant == (n))
#else
#define CP_PLANTED(n) 0
#endif

#endif
