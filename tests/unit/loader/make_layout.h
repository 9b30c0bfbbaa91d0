/*
 * An OCI image-layout for tests in a fresh folder, filled blob by blob. Its store is STORE, its
 * caches lie within the folder as well.
 */
#ifndef CP_TESTS_LOADER_MAKE_LAYOUT_H
#define CP_TESTS_LOADER_MAKE_LAYOUT_H

#include "loader/oci/store/folder.h"
#include "loader/oci/store/places.h"

typedef struct cp_mkl {
    char dir[64], store[128], cache[160]; /* cache: STORE/capstan */
    cp_places places;                     /* that alone */
    cp_layout l;
    cp_loader_options opt;
    cp_buf layers; /* of the manifest in the making, JSON */
} cp_mkl;

/* cmocka's setup and teardown; *state is the cp_mkl. */
int cp_mkl_setup(void **state);
int cp_mkl_teardown(void **state);
/* Store bytes as a blob. */
void cp_mkl_blob(cp_mkl *m, const void *p, size_t n, char digest[72]);
/* Add a layer; notes: more JSON members of its descriptor, from ",", or "". */
void cp_mkl_layer(cp_mkl *m, const char *media_type, const void *p, size_t n, const char *notes);
/* Finish the manifest and name it; config: media type and text. more: JSON members of the
 * manifest, from ",", or "". */
void cp_mkl_manifest(cp_mkl *m, const char *name, const char *config_type, const char *config,
                     const char *more, char digest[72]);
/* Name any blob in the index. */
void cp_mkl_name(cp_mkl *m, const char *name, const char *media_type, const char *digest,
                 size_t size);

#endif
