// Blob, Headers, Request, Response and fetch. What leaves is decided by the host, whatever is done here.

class Blob {
  #bytes;
  #type;
  constructor(parts = [], { type = "" } = {}) {
    this.#bytes = concatenate([...parts].map(blobPart));
    this.#type = /^[\x20-\x7e]*$/.test(type) ? `${type}`.toLowerCase() : "";
  }
  get size() {
    return this.#bytes.length;
  }
  get type() {
    return this.#type;
  }
  slice(start = 0, end = this.size, type = "") {
    const part = new Blob([], { type });
    part.#bytes = this.#bytes.slice(start, end);
    return part;
  }
  async bytes() {
    return this.#bytes.slice();
  }
  async arrayBuffer() {
    return this.#bytes.slice().buffer;
  }
  async text() {
    return host.decode(this.#bytes);
  }
  stream() {
    return streamOf(this.#bytes.slice());
  }
  static bytesOf(blob) {
    return blob.#bytes;
  }
}
const blobPart = (part) => {
  if (part instanceof Blob) return Blob.bytesOf(part);
  return typeof part === "object" && part !== null ? bytesOf(part) : encodeText(part);
};
const streamOf = (bytes) =>
  new ReadableStream({
    start(controller) {
      if (bytes.length) controller.enqueue(bytes);
      controller.close();
    },
  });

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const headerName = (name) => {
  if (!TOKEN.test(`${name}`)) throw new TypeError(`${stringify(`${name}`)} is no header name`);
  return `${name}`.toLowerCase();
};
const headerValue = (value) => {
  const text = `${value}`.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (/[\0\n\r]/.test(text)) throw new TypeError("a header value has no line breaks");
  return text;
};

class Headers {
  #list = []; // [name, value] as they were added
  constructor(init = []) {
    const pairs = init instanceof Headers ? init.#list : typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }
  append(name, value) {
    this.#list.push([headerName(name), headerValue(value)]);
  }
  delete(name) {
    const known = headerName(name);
    this.#list = this.#list.filter((pair) => pair[0] !== known);
  }
  get(name) {
    const known = headerName(name);
    const values = this.#list.filter((pair) => pair[0] === known).map((pair) => pair[1]);
    return values.length ? values.join(", ") : null;
  }
  getSetCookie() {
    return this.#list.filter((pair) => pair[0] === "set-cookie").map((pair) => pair[1]);
  }
  has(name) {
    return this.get(name) !== null;
  }
  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }
  forEach(callback, self) {
    for (const [name, value] of this) callback.call(self, value, name, this);
  }
  *entries() {
    const names = [...new Set(this.#list.map((pair) => pair[0]))].sort();
    for (const name of names) {
      if (name !== "set-cookie") yield [name, this.get(name)];
      else for (const value of this.getSetCookie()) yield [name, value];
    }
  }
  *keys() {
    for (const [name] of this.entries()) yield name;
  }
  *values() {
    for (const [, value] of this.entries()) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  static listOf(headers) {
    return headers.#list;
  }
}

// What a body is given as: its bytes, or a stream of them; and the type that it implies.
const bodyOf = (given) => {
  if (given === null || given === undefined) return { source: null, type: "" };
  if (given instanceof ReadableStream) return { source: given, type: "" };
  if (given instanceof Blob) return { source: Blob.bytesOf(given), type: given.type };
  if (given instanceof URLSearchParams) {
    return { source: encodeText(given), type: "application/x-www-form-urlencoded;charset=UTF-8" };
  }
  if (typeof given === "object" && (isView(given) || given instanceof ArrayBuffer)) return { source: bytesOf(given).slice(), type: "" };
  return { source: encodeText(given), type: "text/plain;charset=UTF-8" };
};

class Body {
  #source;
  #used = false;
  #stream;
  constructor(source) {
    this.#source = source;
  }
  get bodyUsed() {
    return this.#used || (this.#stream?.locked ?? false);
  }
  get body() {
    if (this.#source === null) return null;
    this.#stream ??= this.#source instanceof ReadableStream ? this.#source : streamOf(this.#source);
    return this.#stream;
  }
  async bytes() {
    if (this.bodyUsed) throw new TypeError("this body was read already");
    this.#used = true;
    if (this.#source === null) return new Bytes(0);
    if (!this.#stream && !(this.#source instanceof ReadableStream)) return this.#source.slice();
    const parts = [];
    for await (const part of this.body) parts.push(typeof part === "string" ? encodeText(part) : bytesOf(part));
    return concatenate(parts);
  }
  async arrayBuffer() {
    return (await this.bytes()).buffer;
  }
  async blob() {
    return new Blob([await this.bytes()], { type: this.headers.get("content-type") ?? "" });
  }
  async text() {
    const text = host.decode(await this.bytes());
    return text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
  }
  async json() {
    return JSON.parse(await this.text());
  }
  static sourceOf(body) {
    if (body.bodyUsed) throw new TypeError("this body was read already");
    if (body.#source instanceof ReadableStream) throw new TypeError("a body that streams cannot be had twice");
    return body.#source;
  }
}

const METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
const methodOf = (given) => {
  if (!TOKEN.test(`${given}`)) throw new TypeError(`${stringify(`${given}`)} is no method`);
  const upper = `${given}`.toUpperCase();
  return METHODS.includes(upper) ? upper : `${given}`;
};

class Request extends Body {
  constructor(input, init = {}) {
    const from = input instanceof Request ? input : null;
    const { source, type } = "body" in init ? bodyOf(init.body) : { source: from ? Body.sourceOf(from) : null, type: "" };
    super(source);
    this.url = from ? from.url : new URL(`${input}`).href;
    this.method = methodOf(init.method ?? from?.method ?? "GET");
    this.headers = new Headers(init.headers ?? from?.headers ?? []);
    this.redirect = init.redirect ?? from?.redirect ?? "follow";
    this.signal = init.signal ?? from?.signal ?? new AbortSignal();
    if (source !== null && ["GET", "HEAD"].includes(this.method)) throw new TypeError(`${this.method} has no body`);
    if (type && !this.headers.has("content-type")) this.headers.set("content-type", type);
  }
  clone() {
    return new Request(this);
  }
}

const NO_BODY = [101, 204, 205, 304];
class Response extends Body {
  constructor(body = null, { status = 200, statusText = "", headers = [] } = {}) {
    const { source, type } = bodyOf(body);
    super(source);
    if (!(status >= 200 && status <= 599)) throw new RangeError(`${status} is no status of a response`);
    if (source !== null && NO_BODY.includes(status)) throw new TypeError(`a response of status ${status} has no body`);
    this.status = status;
    this.statusText = `${statusText}`;
    this.headers = new Headers(headers);
    if (type && !this.headers.has("content-type")) this.headers.set("content-type", type);
    this.url = "";
    this.redirected = false;
    this.type = "default";
  }
  get ok() {
    return this.status >= 200 && this.status <= 299;
  }
  clone() {
    const copy = new Response(Body.sourceOf(this), { status: this.status, statusText: this.statusText, headers: this.headers });
    return Object.assign(copy, { url: this.url, redirected: this.redirected, type: this.type });
  }
  static json(value, init = {}) {
    const headers = new Headers(init.headers ?? []);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(JSON.stringify(value), { ...init, headers });
  }
  static error() {
    return Object.assign(new Response(), { type: "error" });
  }
  static redirect(url, status = 302) {
    return new Response(null, { status, headers: { location: new URL(`${url}`).href } });
  }
}

// The body of an answer: the host gives the next piece of it, base64, when it is asked; null at its end.
const incoming = (id, signal) =>
  new ReadableStream({
    async pull(controller) {
      const piece = await orAborted(callHost("net.read", { body: id }), signal);
      if (piece === null) controller.close();
      else controller.enqueue(fromBase64(piece));
    },
    cancel: () => callHost("net.close", { body: id }),
  });

const orAborted = (promise, signal) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });

globals.fetch = async (input, init) => {
  const request = new Request(input, init);
  request.signal.throwIfAborted();
  const body = await request.bytes();
  const asked = { url: request.url, method: request.method, headers: Headers.listOf(request.headers), redirect: request.redirect };
  if (body.length) asked.body = toBase64(body);
  let answer;
  try {
    answer = await orAborted(callHost("net.fetch", asked), request.signal);
  } catch (error) {
    if (request.signal.aborted) throw request.signal.reason;
    throw Object.assign(new TypeError(`fetch failed: ${error.message}`), { cause: error });
  }
  const hasBody = answer.body !== null && !NO_BODY.includes(answer.status);
  const response = new Response(hasBody ? incoming(answer.body, request.signal) : null, answer);
  return Object.assign(response, { url: answer.url, redirected: answer.redirected, type: "basic" });
};
Object.assign(globals, { Blob, Headers, Request, Response });
