// Text and bytes.

const wellFormed = uncurry(String.prototype.toWellFormed);
const base64 = uncurry(Uint8Array.prototype.toBase64);
const fromBase64 = Uint8Array.fromBase64;
const Bytes = Uint8Array;

// The bytes of an ArrayBuffer or a view, not copied; TypeError for anything else.
const bytesOf = (value) => {
  if (isView(value)) return new Bytes(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Bytes(value);
  throw new TypeError("an ArrayBuffer or a view of one is needed");
};
const toBase64 = (bytes) => base64(bytes);
const encodeText = (text) => host.encode(wellFormed(`${text}`));

globals.TextEncoder = class TextEncoder {
  get encoding() {
    return "utf-8";
  }
  encode(text = "") {
    return encodeText(text);
  }
  encodeInto(text, target) {
    let read = 0;
    let written = 0;
    for (const character of `${text}`) {
      const bytes = encodeText(character);
      if (written + bytes.length > target.length) break;
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
};

const UTF8_LABELS = ["utf-8", "utf8", "unicode-1-1-utf-8"];
const BYTE_ORDER_MARK = "\uFEFF";

// How many bytes at the end are the beginning of a character that goes on in the next chunk.
const unfinished = (bytes) => {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back];
    if ((byte & 0xc0) === 0x80) continue;
    const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needs > back ? back : 0;
  }
  return 0;
};

globals.TextDecoder = class TextDecoder {
  #fatal;
  #keepsMark;
  #held = new Bytes(0);
  #started = false;
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    if (!UTF8_LABELS.includes(`${label}`.trim().toLowerCase())) {
      throw new RangeError(`TextDecoder knows utf-8 only, not ${label}`);
    }
    this.#fatal = !!fatal;
    this.#keepsMark = !!ignoreBOM;
  }
  get encoding() {
    return "utf-8";
  }
  get fatal() {
    return this.#fatal;
  }
  get ignoreBOM() {
    return this.#keepsMark;
  }
  decode(input, { stream = false } = {}) {
    let bytes = input === undefined ? new Bytes(0) : bytesOf(input);
    if (this.#held.length) bytes = concatenate([this.#held, bytes]);
    const kept = stream ? unfinished(bytes) : 0;
    this.#held = bytes.slice(bytes.length - kept);
    let text = host.decode(bytes.subarray(0, bytes.length - kept));
    if (this.#fatal && text.includes("\uFFFD") && !isUtf8(bytes.subarray(0, bytes.length - kept), text)) {
      throw new TypeError("these bytes are not UTF-8");
    }
    if (!this.#started && !this.#keepsMark && text.startsWith(BYTE_ORDER_MARK)) text = text.slice(1);
    this.#started = stream && (this.#started || text.length > 0);
    return text;
  }
};

// U+FFFD may stand in the text itself.
const isUtf8 = (bytes, text) => {
  const again = encodeText(text);
  if (again.length !== bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) if (again[i] !== bytes[i]) return false;
  return true;
};

const concatenate = (parts) => {
  let total = 0;
  for (const part of parts) total += part.length;
  const whole = new Bytes(total);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};
