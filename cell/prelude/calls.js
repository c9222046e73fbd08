// Calls of the host: each a promise, all that were made in one turn sent together.
// What guest code may change (prototypes, globals) is not used here: it is taken before guest code runs.

const stringify = JSON.stringify;
const { apply, ownKeys } = Reflect;
const { defineProperty, setPrototypeOf, fromEntries } = Object;
const { isView } = ArrayBuffer;
const NativePromise = Promise;
const NativeMap = Map;
const NativeSet = Set;
const NativeBuffer = ArrayBuffer;
const NativeString = String;
const NativeNumber = Number;
const uncurry = (method) => (that, ...rest) => apply(method, that, rest);
const then = uncurry(Promise.prototype.then);
const mapGet = uncurry(Map.prototype.get);
const mapSet = uncurry(Map.prototype.set);
const mapDelete = uncurry(Map.prototype.delete);
const mapClear = uncurry(Map.prototype.clear);
const mapSize = uncurry(Object.getOwnPropertyDescriptor(Map.prototype, "size").get);
const Failure = Error;
const isArray = Array.isArray;

// A frame of more than a mebibyte may be one call and nothing else, or the end; a character is six bytes at most.
const BATCH_CHARACTERS = 65536;
const LINE_CHARACTERS = 10000;
const ERROR_CHARACTERS = 20000;
let nextCall = 1;
const calls = [];
const logs = [];
let heldCharacters = 0; // of logs and calls
let done = true;
const pending = new NativeMap(); // id → [resolve, reject]

// Arrays of ours are filled by index: `push` and setters of Array.prototype are the guest's to change.
const plain = (fields) => setPrototypeOf(fields, null);
const append = (list, value) =>
  defineProperty(list, list.length, plain({ value, enumerable: true, writable: true, configurable: true }));

const encodeValue = (key, value) => {
  switch (typeof value) {
    case "bigint":
      return `${value}`;
    case "function":
      return `[function ${value.name || "anonymous"}]`;
    case "symbol":
      return apply(symbolText, value, []);
    case "object":
      return value === null ? null : encodeObject(value);
    default:
      return value;
  }
};
const symbolText = Symbol.prototype.toString;

const encodeObject = (value) => {
  if (value instanceof Failure) return plain({ name: `${value.name}`, message: `${value.message}` });
  if (value instanceof NativeMap) return plain(fromEntries(value));
  if (value instanceof NativeSet) return [...value];
  if (isView(value) || value instanceof NativeBuffer) return plain({ $bytes: toBase64(bytesOf(value)) });
  return value;
};

const toJson = (value) => {
  const text = stringify(value, encodeValue);
  return text === undefined ? "null" : text;
};

// As JSON, of nothing but strings: what makes an object may be the guest's by now.
const describeError = (error) => {
  const known = error instanceof Failure;
  const name = known ? cut(error.name) : "Error";
  const message = cut(known ? error.message : typeof error === "string" ? error : safeText(error));
  const stack = known ? cut(error.stack ?? "") : "";
  return `{"name":${stringify(name)},"message":${stringify(message)},"stack":${stringify(stack)}}`;
};
const slice = uncurry(String.prototype.slice);
const cut = (text) => slice(`${text}`, 0, ERROR_CHARACTERS);

const safeText = (value) => {
  try {
    return typeof value === "object" && value !== null ? toJson(value) : NativeString(value);
  } catch {
    return "(a value that cannot be shown)";
  }
};

// Half a surrogate pair is no text outside of JavaScript; JSON.stringify writes a whole one as it is.
const HALF_PAIR = "\\ud";
const ESCAPES = /\\(?:u(d[89a-f][0-9a-f]{2})|[^])/g;
const includes = uncurry(String.prototype.includes);
const replaceIn = uncurry(String.prototype.replace);
const send = (text) =>
  host.send(includes(text, HALF_PAIR) ? replaceIn(text, ESCAPES, (all, half) => (half ? "\\ufffd" : all)) : text);

// Sends a call; settles as the host answers.
const callHost = (name, argument) =>
  new NativePromise((resolve, reject) => {
    const id = nextCall++;
    const call = `{"id":${id},"n":${stringify(name)},"a":${toJson(argument)}}`;
    hold(calls, call);
    mapSet(pending, id, [resolve, reject]);
  });

// What is large goes alone, what is small together with others of its turn.
const hold = (list, entry) => {
  if (entry.length > BATCH_CHARACTERS) {
    sendTurn();
    send(`{"t":"turn","c":[${entry}]}`);
    return;
  }
  if (heldCharacters + entry.length > BATCH_CHARACTERS) sendTurn();
  append(list, entry);
  heldCharacters += entry.length;
};

const join = (list) => {
  let text = "";
  for (let i = 0; i < list.length; i++) text += (i ? "," : "") + list[i];
  return text;
};

const discardHeld = () => {
  logs.length = 0;
  calls.length = 0;
  heldCharacters = 0;
};

const sendTurn = () => {
  if (!logs.length && !calls.length) return;
  const turn = `{"t":"turn","l":[${join(logs)}],"c":[${join(calls)}]}`;
  discardHeld();
  send(turn);
};

const writeLog = (level, text) => {
  const shown = text.length > LINE_CHARACTERS ? `${slice(text, 0, LINE_CHARACTERS)}… (${text.length} characters)` : text;
  hold(logs, `[${stringify(level)},${stringify(shown)}]`);
};

const finish = (outcome) => {
  if (done) return;
  done = true;
  calls.length = 0; // nobody waits for them
  mapClear(pending);
  clearTimers();
  sendTurn();
  try {
    send(`{"t":"done",${outcome}}`);
  } catch (error) {
    send(`{"t":"done","ok":false,"e":${describeError(error)}}`);
  }
};

const fail = (error) => finish(`"ok":false,"e":${describeError(error)}`);

const succeed = (value) => {
  let text;
  try {
    text = toJson(value);
  } catch (error) {
    fail(error);
    return;
  }
  finish(`"ok":true,"v":${text}`);
};

// Answers of the host: {"s":[{"id","ok","v"}, {"id","ok":false,"e":{"name","message"}}]}
const settle = (message) => {
  const list = message.s;
  if (!isArray(list)) return;
  for (let i = 0; i < list.length; i++) {
    const answer = list[i];
    const functions = mapGet(pending, answer.id);
    if (!functions) continue;
    mapDelete(pending, answer.id);
    if (answer.ok) functions[0](answer.v === undefined ? null : answer.v);
    else functions[1](errorOf(answer.e));
  }
};

const errorOf = (told) => {
  const error = new Failure(`${told?.message ?? "the call failed"}`);
  defineProperty(error, "name", plain({ value: `${told?.name ?? "Error"}`, configurable: true, writable: true }));
  return error;
};
