// crypto: random bytes from the kernel, digests by the host.

const INTEGER_VIEWS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];
const DIGESTS = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];

const hex = (bytes) => {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
};

globals.crypto = {
  getRandomValues(array) {
    if (!INTEGER_VIEWS.some((type) => array instanceof type)) {
      throw new DOMException("an array of integers is needed", "TypeMismatchError");
    }
    const bytes = bytesOf(array);
    if (bytes.length > 65536) throw new DOMException("at most 65536 bytes at once", "QuotaExceededError");
    bytes.set(host.random_bytes(bytes.length));
    return array;
  },
  randomUUID() {
    const bytes = host.random_bytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const text = hex(bytes);
    return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
  },
  subtle: {
    async digest(algorithm, data) {
      const name = `${typeof algorithm === "string" ? algorithm : algorithm?.name}`.toUpperCase();
      if (!DIGESTS.includes(name)) throw new DOMException(`there is no digest ${name}`, "NotSupportedError");
      const answer = await callHost("crypto.digest", { algorithm: name, data: toBase64(bytesOf(data)) });
      return fromBase64(answer).buffer;
    },
  },
};
defineProperty(Math, "random", { value: host.random, writable: true, configurable: true });

let origin = 0; // when the first run began
defineProperty(globals, "performance", {
  value: { now: () => host.now() - origin, timeOrigin: 0 },
  writable: true,
  configurable: true,
});
