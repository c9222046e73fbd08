// Event, EventTarget, AbortController, AbortSignal.

class Event {
  #type;
  #stopped = false;
  #prevented = false;
  constructor(type, { cancelable = false } = {}) {
    this.#type = `${type}`;
    this.cancelable = !!cancelable;
    this.target = null;
    this.currentTarget = null;
  }
  get type() {
    return this.#type;
  }
  get defaultPrevented() {
    return this.#prevented;
  }
  preventDefault() {
    if (this.cancelable) this.#prevented = true;
  }
  stopPropagation() {}
  stopImmediatePropagation() {
    this.#stopped = true;
  }
  get isStopped() {
    return this.#stopped;
  }
}

class EventTarget {
  #listeners = [];
  addEventListener(type, listener, options = {}) {
    const { once = false, signal } = typeof options === "boolean" ? {} : options;
    if (!listener || signal?.aborted) return;
    if (this.#listeners.some((one) => one.type === type && one.listener === listener)) return;
    this.#listeners.push({ type, listener, once });
    signal?.addEventListener("abort", () => this.removeEventListener(type, listener), { once: true });
  }
  removeEventListener(type, listener) {
    this.#listeners = this.#listeners.filter((one) => one.type !== type || one.listener !== listener);
  }
  dispatchEvent(event) {
    event.target = event.currentTarget = this;
    for (const one of this.#listeners.filter((each) => each.type === event.type)) {
      if (one.once) this.removeEventListener(one.type, one.listener);
      if (typeof one.listener === "function") one.listener.call(this, event);
      else one.listener.handleEvent(event);
      if (event.isStopped) break;
    }
    return !event.defaultPrevented;
  }
}

const abortOf = new WeakMap(); // signal → function that aborts it
const abortError = () => new DOMException("This operation was aborted", "AbortError");

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  constructor() {
    super();
    this.onabort = null;
    abortOf.set(this, (reason = abortError()) => {
      if (this.#aborted) return;
      this.#aborted = true;
      this.#reason = reason;
      const event = new Event("abort");
      this.onabort?.(event);
      this.dispatchEvent(event);
    });
  }
  get aborted() {
    return this.#aborted;
  }
  get reason() {
    return this.#reason;
  }
  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
  static abort(reason) {
    const signal = new AbortSignal();
    abortOf.get(signal)(reason);
    return signal;
  }
  static timeout(ms) {
    const signal = new AbortSignal();
    globals.setTimeout(() => abortOf.get(signal)(new DOMException("The operation timed out", "TimeoutError")), ms);
    return signal;
  }
  static any(signals) {
    const joined = new AbortSignal();
    for (const one of signals) {
      if (one.aborted) abortOf.get(joined)(one.reason);
      else one.addEventListener("abort", () => abortOf.get(joined)(one.reason), { once: true });
    }
    return joined;
  }
}

class AbortController {
  #signal = new AbortSignal();
  get signal() {
    return this.#signal;
  }
  abort(reason) {
    abortOf.get(this.#signal)(reason);
  }
}

Object.assign(globals, { Event, EventTarget, AbortSignal, AbortController });
