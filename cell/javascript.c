#define _GNU_SOURCE
#include "javascript.h"

#include "fatal.h"
#include "frames.h"
#include "modules.h"
#include "natives.h"

#include <quickjs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STACK_BYTES = 1 << 20 };

/* The prelude as text, ended by a NUL; build.sh puts it in. */
__asm__(".section .rodata\n.global prelude_text\nprelude_text:\n.incbin \"prelude.js\"\n.byte 0\n.previous\n");
extern const char prelude_text[];

/* What the prelude gives to us; `prelude.js` tells of each at its end. */
enum hook { BEGIN, SETTLE, CONCLUDE, REFUSE, TURN, IS_DONE, ASK_MODULE, HOOKS };
static const char *const hook_names[HOOKS] = {"begin", "settle", "conclude", "refuse", "turn", "isDone", "askModule"};

static JSRuntime *runtime;
static JSContext *context;
static JSValue hooks[HOOKS];

/* Calls one of the prelude's own; what it throws ends the cell, for then it is out of memory or broken. */
static JSValue call(enum hook which, int argc, JSValueConst *argv)
{
    JSValue result = JS_Call(context, hooks[which], JS_UNDEFINED, argc, argv);
    if (JS_IsException(result))
        _exit(EXIT_NO_MEMORY);
    return result;
}

static void call_with(enum hook which, JSValue argument)
{
    JS_FreeValue(context, call(which, 1, (JSValueConst[]){argument}));
    JS_FreeValue(context, argument);
}

static JSValue run_prelude(void)
{
    JSValue made = JS_Eval(context, prelude_text, strlen(prelude_text), "prelude", JS_EVAL_TYPE_GLOBAL);
    JSValue natives = natives_object(context);
    JSValue given = JS_IsException(made) ? made : JS_Call(context, made, JS_UNDEFINED, 1, (JSValueConst[]){natives});
    JS_FreeValue(context, natives);
    JS_FreeValue(context, made);
    return given;
}

static _Noreturn void prelude_failed(void)
{
    JSValue error = JS_GetException(context), stack = JS_GetPropertyStr(context, error, "stack");
    const char *what = JS_ToCString(context, error), *where = JS_ToCString(context, stack);
    char both[512];
    strncpy(both, what ? what : "unknown", sizeof both - 1);
    both[sizeof both - 1] = 0;
    if (where)
        strncat(both, where, sizeof both - 1 - strlen(both));
    fatal_because("prelude", both, EXIT_START_FAILED);
}

void javascript_warm(uint64_t memory_bytes)
{
    runtime = JS_NewRuntime();
    context = runtime ? JS_NewContext(runtime) : NULL;
    if (!context)
        fatal_because("javascript", "no memory", EXIT_START_FAILED);
    JS_SetMemoryLimit(runtime, memory_bytes);
    JS_SetMaxStackSize(runtime, STACK_BYTES);
    JSValue given = run_prelude();
    if (JS_IsException(given))
        prelude_failed();
    for (int i = 0; i < HOOKS; i++) {
        hooks[i] = JS_GetPropertyStr(context, given, hook_names[i]);
        if (!JS_IsFunction(context, hooks[i]))
            fatal_because("prelude", hook_names[i], EXIT_START_FAILED);
    }
    JS_FreeValue(context, given);
    modules_serve(runtime, hooks[ASK_MODULE], hooks[SETTLE]);
    JS_RunGC(runtime);
}

/* The exception that was just thrown, for the prelude to tell. */
static void refuse(void)
{
    call_with(REFUSE, JS_GetException(context));
}

static bool is_syntax_error(JSValueConst error)
{
    JSValue name = JS_GetPropertyStr(context, error, "name");
    const char *text = JS_ToCString(context, name);
    bool is = text && !strcmp(text, "SyntaxError");
    JS_FreeCString(context, text);
    JS_FreeValue(context, name);
    return is;
}

static JSValue evaluate_between(const char *before, const char *code, const char *after, const char *name)
{
    size_t bytes = strlen(before) + strlen(code) + strlen(after);
    char *whole = malloc(bytes + 1);
    if (!whole)
        return JS_ThrowOutOfMemory(context);
    stpcpy(stpcpy(stpcpy(whole, before), code), after);
    JSValue result = JS_Eval(context, whole, bytes, name, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_ASYNC);
    free(whole);
    return result;
}

/* Returns what was thrown if it is a SyntaxError, else throws it again and returns JS_UNINITIALIZED. */
static JSValue syntax_error(void)
{
    JSValue error = JS_GetException(context);
    if (is_syntax_error(error))
        return error;
    JS_Throw(context, error);
    return JS_UNINITIALIZED;
}

/*
 * A script is a block, so that what it declares is its own and its value is that of its last expression. One that
 * returns is none, and is tried as a function; one that imports or exports is neither, and is a module.
 */
static JSValue evaluate(const char *code, const char *name, JSValue *exports)
{
    JSValue result = evaluate_between("{", code, "\n}", name);
    if (!JS_IsException(result))
        return result;
    JSValue first = syntax_error();
    if (JS_IsUninitialized(first))
        return JS_EXCEPTION;
    result = evaluate_between("(async()=>{", code, "\n})()", name);
    if (JS_IsException(result)) {
        JSValue second = syntax_error();
        if (!JS_IsUninitialized(second)) {
            JS_FreeValue(context, second);
            if (!JS_DetectModule(code, strlen(code)))
                return JS_Throw(context, first);
            result = modules_evaluate(context, code, name, exports);
        }
    }
    JS_FreeValue(context, first);
    return result;
}

static void run(JSValueConst message)
{
    JSValue code = JS_GetPropertyStr(context, message, "code"), name = JS_GetPropertyStr(context, message, "name");
    const char *text = JS_ToCString(context, code), *path = JS_ToCString(context, name);
    JSValue value = JS_EXCEPTION, exports = JS_UNDEFINED;
    if (text && path)
        value = evaluate(text, path, &exports);
    if (JS_IsException(value))
        refuse();
    else
        JS_FreeValue(context, call(CONCLUDE, 2, (JSValueConst[]){value, exports}));
    JS_FreeValue(context, value);
    JS_FreeValue(context, exports);
    JS_FreeCString(context, text);
    JS_FreeCString(context, path);
    JS_FreeValue(context, code);
    JS_FreeValue(context, name);
}

static void run_jobs(void)
{
    JSContext *of;
    int ran;
    while ((ran = JS_ExecutePendingJob(runtime, &of)) != 0)
        if (ran < 0)
            JS_FreeValue(of, JS_GetException(of));
}

static bool is_done(void)
{
    JSValue done = call(IS_DONE, 0, NULL);
    return JS_ToBool(context, done) != 0;
}

/* Sends what waits to be sent, and returns for how many milliseconds an answer is worth waiting for. */
static int turn(void)
{
    JSValue wait = call(TURN, 0, NULL);
    int32_t wait_ms;
    if (JS_ToInt32(context, &wait_ms, wait))
        _exit(EXIT_NO_MEMORY);
    return wait_ms;
}

static void settle(const char *text, size_t bytes)
{
    JSValue message = JS_ParseJSON(context, text, bytes, "frame");
    if (JS_IsException(message))
        _exit(EXIT_NO_MEMORY);
    call_with(SETTLE, message);
}

static void run_to_its_end(void)
{
    for (run_jobs(); !is_done(); run_jobs()) {
        int wait_ms = turn();
        size_t bytes;
        if (JS_IsJobPending(runtime) || is_done())
            continue;
        const char *text = frame_receive(wait_ms, &bytes);
        if (text)
            settle(text, bytes);
    }
}

static void born(void)
{
    natives_seed();
}

static void serve(void)
{
    JS_UpdateStackTop(runtime);
    for (;;) {
        size_t bytes;
        const char *text = frame_receive(-1, &bytes);
        JSValue message = JS_ParseJSON(context, text, bytes, "frame");
        if (JS_IsException(message))
            _exit(EXIT_NO_MEMORY);
        JSValue begun = call(BEGIN, 1, (JSValueConst[]){message});
        if (JS_ToBool(context, begun) == 1) {
            run(message);
            run_to_its_end();
        }
        JS_FreeValue(context, message);
    }
}

const struct engine javascript = {.born = born, .serve = serve};
