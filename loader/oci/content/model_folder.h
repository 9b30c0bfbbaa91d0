/*
 * model_folder: a folder that is given as a reference, as what mounts a model into a container
 * gives one: a volume, an image's /models, what a pull has filled.
 *
 * It means the one model that lies in it, and nothing where there are several. A look into one
 * folder; any thread.
 */
#ifndef CP_LOADER_OCI_CONTENT_MODEL_FOLDER_H
#define CP_LOADER_OCI_CONTENT_MODEL_FOLDER_H

#include "loader/oci/reference.h"

/* Make ref (CP_REF_PATH, a folder) the file or the layout that is meant: the only .gguf, of shards
 * the first, projectors (mmproj-...) aside; or an image layout, of which it must be the only entry.
 * CP_UNSUPPORTED with what to name instead. */
cp_code cp_model_folder(cp_ref *ref, cp_err *err);

#endif
