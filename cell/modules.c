#define _GNU_SOURCE
#include "modules.h"

#include "frames.h"
#include "zygote.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static JSValue ask_host, settle_others;

/* Returns the answer to question `id` if it is in this frame, else JS_UNINITIALIZED. */
static JSValue answer_in(JSContext *context, JSValueConst message, int64_t id)
{
    JSValue list = JS_GetPropertyStr(context, message, "s"), found = JS_UNINITIALIZED;
    int64_t count = 0;
    if (JS_IsObject(list) && JS_GetLength(context, list, &count))
        count = 0;
    for (int64_t i = 0; i < count && JS_IsUninitialized(found); i++) {
        JSValue one = JS_GetPropertyInt64(context, list, i), number = JS_GetPropertyStr(context, one, "id");
        int64_t its;
        if (!JS_ToInt64(context, &its, number) && its == id)
            found = JS_DupValue(context, one);
        JS_FreeValue(context, number);
        JS_FreeValue(context, one);
    }
    JS_FreeValue(context, list);
    return found;
}

static JSValue await_answer(JSContext *context, int64_t id)
{
    for (;;) {
        size_t bytes;
        const char *text = frame_receive(-1, &bytes);
        JSValue message = JS_ParseJSON(context, text, bytes, "frame");
        if (JS_IsException(message))
            _exit(EXIT_NO_MEMORY);
        JSValue answer = answer_in(context, message, id);
        JS_FreeValue(context, JS_Call(context, settle_others, JS_UNDEFINED, 1, (JSValueConst[]){message}));
        JS_FreeValue(context, message);
        if (!JS_IsUninitialized(answer))
            return answer;
    }
}

/* Returns the text of a module, or throws why there is none. */
static JSValue fetch_source(JSContext *context, const char *path)
{
    JSValue name = JS_NewString(context, path);
    JSValue asked = JS_Call(context, ask_host, JS_UNDEFINED, 1, (JSValueConst[]){name});
    JS_FreeValue(context, name);
    int64_t id;
    if (JS_IsException(asked) || JS_ToInt64(context, &id, asked))
        return JS_EXCEPTION;
    JSValue answer = await_answer(context, id);
    JSValue source = JS_GetPropertyStr(context, answer, "v");
    if (!JS_IsString(source)) {
        JSValue error = JS_GetPropertyStr(context, answer, "e");
        JSValue text = JS_GetPropertyStr(context, error, "message");
        const char *why = JS_ToCString(context, text);
        JS_FreeValue(context, source);
        source = JS_ThrowReferenceError(context, "cannot import %s: %s", path, why ? why : "no answer");
        JS_FreeCString(context, why);
        JS_FreeValue(context, text);
        JS_FreeValue(context, error);
    }
    JS_FreeValue(context, answer);
    return source;
}

static JSValue compile(JSContext *context, const char *code, const char *name)
{
    return JS_Eval(context, code, strlen(code), name, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
}

static JSModuleDef *load(JSContext *context, const char *name, void *opaque)
{
    (void)opaque;
    JSValue source = fetch_source(context, name);
    const char *code = JS_IsException(source) ? NULL : JS_ToCString(context, source);
    JSValue module = code ? compile(context, code, name) : JS_EXCEPTION;
    JS_FreeCString(context, code);
    JS_FreeValue(context, source);
    if (JS_IsException(module))
        return NULL;
    JSModuleDef *definition = JS_VALUE_GET_PTR(module);
    JS_FreeValue(context, module); /* the context holds it */
    return definition;
}

void modules_serve(JSRuntime *runtime, JSValueConst ask, JSValueConst settle)
{
    ask_host = ask;
    settle_others = settle;
    JS_SetModuleLoaderFunc(runtime, NULL, load, NULL);
}

JSValue modules_evaluate(JSContext *context, const char *code, const char *name, JSValue *exports)
{
    JSValue module = compile(context, code, name);
    if (JS_IsException(module))
        return module;
    JSModuleDef *definition = JS_VALUE_GET_PTR(module);
    JSValue promise = JS_EvalFunction(context, module);
    if (!JS_IsException(promise))
        *exports = JS_GetModuleNamespace(context, definition);
    return promise;
}
