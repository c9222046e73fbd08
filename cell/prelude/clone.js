// structuredClone: what JSON cannot say too, and cycles.

const CLONED_AS_THEY_ARE = [Boolean, Number, String, BigInt];
const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

const cannotClone = (what) => new DOMException(`${what} cannot be cloned`, "DataCloneError");

const cloneError = (value, inner) => {
  const copy = new (ERRORS[value.name] ?? Error)(value.message);
  for (const field of ["stack", "cause"]) {
    if (Object.hasOwn(value, field)) {
      defineProperty(copy, field, { value: inner(value[field]), writable: true, configurable: true });
    }
  }
  return copy;
};

const cloneView = (value, inner) => {
  const buffer = inner(value.buffer);
  const length = value instanceof DataView ? value.byteLength : value.length;
  return new value.constructor(buffer, value.byteOffset, length);
};

const cloneObject = (value, seen) => {
  const inner = (one) => clone(one, seen);
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (CLONED_AS_THEY_ARE.some((type) => value instanceof type)) return keep(Object(value.valueOf()));
  if (value instanceof Date) return keep(new Date(value.getTime()));
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (isView(value)) return keep(cloneView(value, inner));
  if (value instanceof Failure) return keep(cloneError(value, inner));
  if (value instanceof Map) {
    const copy = keep(new Map());
    for (const [key, entry] of value) copy.set(inner(key), inner(entry));
    return copy;
  }
  if (value instanceof Set) {
    const copy = keep(new Set());
    for (const entry of value) copy.add(inner(entry));
    return copy;
  }
  for (const type of [Promise, WeakMap, WeakSet, WeakRef]) {
    if (value instanceof type) throw cannotClone(`a ${type.name}`);
  }
  const copy = keep(isArray(value) ? new Array(value.length) : {});
  for (const key of Object.keys(value)) copy[key] = inner(value[key]);
  return copy;
};

const clone = (value, seen) => {
  if (typeof value === "function" || typeof value === "symbol") throw cannotClone(showSafely(value));
  if (typeof value !== "object" || value === null) return value;
  return seen.get(value) ?? cloneObject(value, seen);
};

globals.structuredClone = (value) => clone(value, new Map());
