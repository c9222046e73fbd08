#define _GNU_SOURCE
#include "natives.h"

#include "fatal.h"
#include "frames.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { RANDOM_BYTES_MAX = 65536, MANTISSA_BITS = 53 };

static uint64_t state[2];

void natives_seed(void)
{
    do {
        if (getrandom(state, sizeof state, 0) != (ssize_t)sizeof state)
            _exit(EXIT_START_FAILED);
    } while (!(state[0] | state[1]));
}

/* xorshift128+, as browsers have it: not for secrets. */
static JSValue unit_random(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc, (void)argv;
    uint64_t a = state[0], b = state[1];
    state[0] = b;
    a ^= a << 23;
    state[1] = a ^ b ^ a >> 17 ^ b >> 26;
    return JS_NewFloat64(context, (double)((state[1] + b) >> (64 - MANTISSA_BITS)) / (double)(1ULL << MANTISSA_BITS));
}

/* random_bytes(n): a Uint8Array from the kernel. */
static JSValue random_bytes(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc;
    unsigned char bytes[RANDOM_BYTES_MAX];
    uint64_t count;
    if (JS_ToIndex(context, &count, argv[0]))
        return JS_EXCEPTION;
    if (count > sizeof bytes)
        return JS_ThrowRangeError(context, "at most %d bytes at once", RANDOM_BYTES_MAX);
    for (size_t have = 0; have < count;) {
        ssize_t got = getrandom(bytes + have, count - have, 0);
        if (got < 0)
            return JS_ThrowInternalError(context, "no random bytes");
        have += (size_t)got;
    }
    return JS_NewUint8ArrayCopy(context, bytes, count);
}

/* send(text): one frame to the host. */
static JSValue send_frame(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc;
    size_t bytes;
    const char *text = JS_ToCStringLen(context, &bytes, argv[0]);
    if (!text)
        return JS_EXCEPTION;
    bool sent = frame_send(text, bytes);
    JS_FreeCString(context, text);
    if (!sent)
        return JS_ThrowRangeError(context, "more than %d MiB at once", FRAME_BYTES_MAX >> 20);
    return JS_UNDEFINED;
}

/* now(): milliseconds on a clock that only goes forward, in whole ones. */
static JSValue now_ms(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc, (void)argv;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return JS_NewInt64(context, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/* encode(text): the UTF-8 of a text without lone surrogates, as a Uint8Array. */
static JSValue encode(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc;
    size_t bytes;
    const char *text = JS_ToCStringLen(context, &bytes, argv[0]);
    if (!text)
        return JS_EXCEPTION;
    JSValue array = JS_NewUint8ArrayCopy(context, (const uint8_t *)text, bytes);
    JS_FreeCString(context, text);
    return array;
}

/* decode(bytes): the text of a Uint8Array of UTF-8; what is none is U+FFFD. */
static JSValue decode(JSContext *context, JSValueConst this, int argc, JSValueConst *argv)
{
    (void)this, (void)argc;
    size_t bytes;
    uint8_t *data = JS_GetUint8Array(context, &bytes, argv[0]);
    return data ? JS_NewStringLen(context, (const char *)data, bytes) : JS_EXCEPTION;
}

static const JSCFunctionListEntry functions[] = {
    JS_CFUNC_DEF("send", 1, send_frame),   JS_CFUNC_DEF("now", 0, now_ms),
    JS_CFUNC_DEF("random", 0, unit_random), JS_CFUNC_DEF("random_bytes", 1, random_bytes),
    JS_CFUNC_DEF("encode", 1, encode),     JS_CFUNC_DEF("decode", 1, decode),
};

JSValue natives_object(JSContext *context)
{
    JSValue object = JS_NewObject(context);
    JS_SetPropertyFunctionList(context, object, functions, (int)(sizeof functions / sizeof *functions));
    return object;
}
