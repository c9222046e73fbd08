// ReadableStream, as far as bodies need it: pulled, read by one reader, iterated, cancelled.

class ReadableStreamReader {
  #stream;
  constructor(stream) {
    this.#stream = stream;
  }
  async read() {
    if (!this.#stream) throw new TypeError("this reader was released");
    return streamPull.get(this.#stream)();
  }
  async cancel(reason) {
    await this.#stream?.cancel(reason);
  }
  releaseLock() {
    if (this.#stream) streamLocks.delete(this.#stream);
    this.#stream = undefined;
  }
}
const streamPull = new WeakMap(); // stream → function that gives {value, done}
const streamLocks = new WeakSet();

class ReadableStream {
  #queue = [];
  #ended = false;
  #failure;
  #source;
  #waiting = [];
  constructor(source = {}) {
    this.#source = source;
    const controller = {
      enqueue: (chunk) => {
        this.#queue.push(chunk);
        this.#wake();
      },
      close: () => {
        this.#ended = true;
        this.#wake();
      },
      error: (reason) => {
        this.#failure = { reason };
        this.#wake();
      },
    };
    streamPull.set(this, () => this.#next(controller));
    source.start?.(controller);
  }
  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
  async #next(controller) {
    for (;;) {
      if (this.#failure) throw this.#failure.reason;
      if (this.#queue.length) return { value: this.#queue.shift(), done: false };
      if (this.#ended) return { value: undefined, done: true };
      if (this.#source.pull) await this.#source.pull(controller);
      else await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }
  get locked() {
    return streamLocks.has(this);
  }
  getReader() {
    if (this.locked) throw new TypeError("this stream is being read already");
    streamLocks.add(this);
    return new ReadableStreamReader(this);
  }
  async cancel(reason) {
    this.#ended = true;
    this.#queue = [];
    this.#wake();
    await this.#source.cancel?.(reason);
  }
  async *[Symbol.asyncIterator]() {
    const reader = this.getReader();
    try {
      for (let step = await reader.read(); !step.done; step = await reader.read()) yield step.value;
    } finally {
      reader.releaseLock();
    }
  }
}

globals.ReadableStream = ReadableStream;
