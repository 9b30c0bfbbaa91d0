/*
 * What the suites of test_loader_pull share: a fresh folder with a store in it and a fake registry,
 * and small helpers over them.
 */
#ifndef CP_TESTS_LOADER_PULL_ROOM_H
#define CP_TESTS_LOADER_PULL_ROOM_H

#include "loader/oci/store/folder.h"
#include "loader/oci/store/places.h"
#include "tests/unit/loader/fake_registry.h"
#include "tests/unit/loader/suites.h"

typedef struct cp_room {
    char dir[64], store[128], records[256];
    cp_places places;
    cp_layout l;
    cp_fake *fake;
    cp_registry *registry;
} cp_room;

int cp_room_setup(void **state);
int cp_room_teardown(void **state);
/* The descriptor of a fake blob. */
cp_descriptor cp_room_descriptor(const cp_fake_item *it);
/* Path of a file in the store, as in printf. */
const char *cp_room_path(const cp_room *r, char out[512], const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
size_t cp_room_count(const cp_room *r, const char *folder); /* files in a folder of the store */
/* The blob lies in the store, byte for byte, read-only, with a record. */
void cp_room_has_blob(const cp_room *r, const cp_fake_item *it);
/* Run fn(arg) in a child: returns its wait status. */
int cp_room_child(int (*fn)(void *arg), void *arg);

int cp_suite_partial(void);
int cp_suite_transfer(void);
int cp_suite_pull(void);
int cp_suite_whole(void);

#endif
