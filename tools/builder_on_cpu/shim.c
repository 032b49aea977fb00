/* Lets the Python bindings of TensorRT 11 drive the builder and the ONNX parser of TensorRT-RTX,
 * which need no GPU; see README.md. Compiled as libnvinfer.so.11, libnvonnxparser.so.11 and
 * libnvinfer_plugin.so.11.
 *
 * Each entry point forwards with the version number that the other library expects. There is no
 * runtime and no refitter: they would crash without a GPU, so Python gets a TypeError instead.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* The function `name` of the library that the environment variable `variable` names. */
static void *function_of(const char *variable, const char *name)
{
    const char *path = getenv(variable);
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    void *function = library ? dlsym(library, name) : NULL;
    if (!function) {
        fprintf(stderr, "%s=%s, %s: %s\n", variable, path ? path : "", name,
                path ? dlerror() : "not set");
        abort();
    }
    return function;
}

#define BUILDER(name) function_of("RTX_LIBRARY", name)
#define PARSER(name) function_of("RTX_PARSER", name)

typedef int (*Version)(void);
typedef void *(*Get)(void);
typedef void *(*GetFor)(int capability);
typedef void *(*Create)(void *logger, int version);
typedef void *(*CreateFor)(void *network, void *logger, int version);

int getInferLibVersion(void)
{
    return ((Version)BUILDER("getInferLibVersion"))();
}

int getNvOnnxParserVersion(void)
{
    return ((Version)PARSER("getNvOnnxParserVersion"))();
}

void *createInferBuilder_INTERNAL(void *logger, int version)
{
    (void)version;
    return ((Create)BUILDER("createInferBuilder_INTERNAL"))(logger, getInferLibVersion());
}

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version)
{
    (void)version;
    CreateFor create = (CreateFor)PARSER("createNvOnnxParser_INTERNAL");
    return create(network, logger, getNvOnnxParserVersion());
}

void *createInferRuntime_INTERNAL(void *logger, int version)
{
    (void)logger, (void)version;
    return NULL;
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int version)
{
    (void)engine, (void)logger, (void)version;
    return NULL;
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version)
{
    (void)refitter, (void)logger, (void)version;
    return NULL;
}

void *getBuilderPluginRegistry(int capability)
{
    return ((GetFor)BUILDER("getBuilderPluginRegistry"))(capability);
}

void *getPluginRegistry(void)
{
    return ((Get)BUILDER("getPluginRegistry"))();
}

bool initLibNvInferPlugins(void *logger, const char *space)
{
    (void)logger, (void)space;
    return true;
}
