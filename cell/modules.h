/* ES modules of the workspace: by path, each asked of the host when it is imported. */
#ifndef HANDIWORK_CELL_MODULES_H
#define HANDIWORK_CELL_MODULES_H

#include <quickjs.h>

/* `ask(path)` sends the question and returns its number; `settle` takes answers to other questions meanwhile. */
void modules_serve(JSRuntime *runtime, JSValueConst ask, JSValueConst settle);

/* Evaluates a module; returns the promise of its end, and in `exports` what it exports; JS_EXCEPTION. */
JSValue modules_evaluate(JSContext *context, const char *code, const char *name, JSValue *exports);

#endif
