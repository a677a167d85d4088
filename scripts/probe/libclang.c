// Tries what bindgen will do with the libclang at argv[1]: load it and parse a header that includes the compiler's own ones. A file of
// the right name proves nothing: libclang-cpp matches the pattern, and a libclang without its headers loads and then fails to parse.
// Prints the headers that it read, one a line.
#include <dlfcn.h>
#include <stdio.h>

typedef void *(*create_index)(int, int);
typedef int (*parse)(void *, const char *, const char *const *, int, void *, unsigned, unsigned, void **);
typedef unsigned (*count_diagnostics)(void *);

// As clang-c/CXString.h has it: a libclang may be there without its C headers.
typedef struct {
    const void *data;
    unsigned flags;
} string;
typedef void (*visitor)(void *file, void *stack, unsigned depth, void *data);
typedef void (*visit_inclusions)(void *, visitor, void *);
static string (*file_name)(void *);
static const char *(*text)(string);

static void print_name(void *file, void *stack, unsigned depth, void *data) {
    (void)stack, (void)depth, (void)data;
    puts(text(file_name(file)));
}

int main(int count, char **arguments) {
    if (count != 3) return fprintf(stderr, "usage: libclang LIBRARY HEADER\n"), 2;
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
    create_index index = (create_index)dlsym(library, "clang_createIndex");
    parse translate = (parse)dlsym(library, "clang_parseTranslationUnit2");
    count_diagnostics diagnostics = (count_diagnostics)dlsym(library, "clang_getNumDiagnostics");
    visit_inclusions inclusions = (visit_inclusions)dlsym(library, "clang_getInclusions");
    file_name = (string (*)(void *))dlsym(library, "clang_getFileName");
    text = (const char *(*)(string))dlsym(library, "clang_getCString");
    if (!index || !translate || !diagnostics || !inclusions || !file_name || !text)
        return fprintf(stderr, "%s is no libclang\n", arguments[1]), 1;
    void *unit = NULL;
    int failed = translate(index(0, 0), arguments[2], NULL, 0, NULL, 0, 0, &unit);
    if (failed || !unit) return fprintf(stderr, "%s parses nothing\n", arguments[1]), 1;
    if (diagnostics(unit)) return fprintf(stderr, "%s does not find the compiler's headers\n", arguments[1]), 1;
    inclusions(unit, print_name, NULL);
    return 0;
}
