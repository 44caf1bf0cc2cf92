// The Python interpreter, linked with a sanitizer's runtime: preloading the runtime into another one works for some
// versions of clang and crashes for others.
#include <Python.h>

int main(int count, char** arguments) { return Py_BytesMain(count, arguments); }
