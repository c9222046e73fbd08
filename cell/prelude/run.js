// One run, as the C side drives it.

const AsyncFunction = (async () => {}).constructor;
const codeAt = uncurry(String.prototype.charCodeAt);
const startsWith = uncurry(String.prototype.startsWith);
const indexOf = uncurry(String.prototype.indexOf);
const functionText = uncurry(Function.prototype.toString);
const BYTE_ORDER_MARK_CODE = 0xfeff;
const SEMICOLON = 59;
const STUCK =
  "this never ends: it waits for a promise that nothing will settle (no call and no timer is under way)";

const isSpace = (code) => code === 32 || (code >= 9 && code <= 13) || code === 0xa0 || code === BYTE_ORDER_MARK_CODE;

// Where the first word after a place stands, behind spaces and comments.
const nextWord = (text, at) => {
  for (;;) {
    while (isSpace(codeAt(text, at))) at++;
    const mark = startsWith(text, "//", at) ? "\n" : startsWith(text, "/*", at) ? "*/" : "";
    if (!mark) return at;
    const end = indexOf(text, mark, at + 2);
    if (end < 0) return text.length;
    at = end + mark.length;
  }
};

const parses = (body) => {
  try {
    AsyncFunction(body);
    return true;
  } catch {
    return false;
  }
};

// Whether code is one function or one object and nothing else: an expression as a whole, and no statement that goes
// on behind its brace, where a slash would divide and not begin a regular expression.
const isAlone = (code) => {
  let at = nextWord(code, 0);
  if (startsWith(code, "async", at)) at = nextWord(code, at + 5);
  if (!startsWith(code, "function", at) && !startsWith(code, "{", at)) return false;
  return parses(`return (${code}\n)`) && (parses(`${code}\n/[)]/`) || !parses(code));
};

// Code as it is evaluated: without a mark of byte order, the line for a shell a comment, a lone declaration a value.
const prepared = (code) => {
  if (codeAt(code, 0) === BYTE_ORDER_MARK_CODE) code = slice(code, 1);
  if (startsWith(code, "#!")) code = `//${code}`;
  let end = code.length;
  while (end && (isSpace(codeAt(code, end - 1)) || codeAt(code, end - 1) === SEMICOLON)) end--;
  const bare = slice(code, 0, end);
  return isAlone(bare) ? `(${bare}\n)` : code;
};

// {"t":"run", ...} begins one; anything else is an answer that came too late.
const begin = (message) => {
  if (message.t !== "run") return false;
  origin ||= host.now();
  setEnvironment(message.env);
  message.code = prepared(message.code);
  done = false;
  discardHeld();
  mapClear(pending);
  clearTimers();
  return true;
};

const isRun = (value) => typeof value === "function" && !startsWith(functionText(value), "class");

// A script's value comes as {value}; a promise is waited for, a function that is no class is run. A module gives its
// default export.
const conclude = (promise, exports) => {
  const finishWith = (value) => {
    const settled = new NativePromise((resolve) => resolve(isRun(value) ? value() : value));
    return then(settled, succeed, fail);
  };
  const completed = (result) => {
    try {
      if (exports === undefined) {
        const value = typeof result === "object" && result !== null && "value" in result ? result.value : result;
        return finishWith(value);
      }
      return finishWith("default" in exports ? exports.default : undefined);
    } catch (error) {
      return fail(error);
    }
  };
  then(promise, completed, fail);
};

const refuse = (error) => fail(error);

// Sends what waits, runs a timer that is due; returns how long an answer is worth waiting for, -1 forever.
const turn = () => {
  sendTurn();
  if (fireOne()) return 0;
  if (mapSize(pending) || untilNext >= 0) return untilNext;
  fail(new Failure(STUCK));
  return 0;
};

const askModule = (path) => {
  const id = nextCall++;
  hold(calls, `{"id":${id},"n":"workspace.module","a":{"path":${stringify(path)}}}`);
  sendTurn();
  return id;
};

return { begin, settle, conclude, refuse, turn, isDone: () => done, askModule };
