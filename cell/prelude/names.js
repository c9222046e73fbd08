// What guest code calls: `codemode.NAME({...})` and `workspace.NAME({...})`.

const INSTANT = ["then", "toJSON", "constructor", "prototype", "inspect"];

// Any name is a function: which exist is the host's to know, and its answer says so.
const namespaceOf = (name) =>
  new Proxy(plain({}), {
    get: (_, key) => {
      if (typeof key !== "string" || INSTANT.includes(key)) return undefined;
      return (...rest) => callHost(`${name}.${key}`, rest.length === 1 && isFields(rest[0]) ? rest[0] : plain({ $arguments: rest }));
    },
    set: () => false,
    has: (_, key) => typeof key === "string",
  });
const isFields = (value) => typeof value === "object" && value !== null && !isArray(value);

for (const name of ["codemode", "workspace"]) {
  defineProperty(globals, name, { value: namespaceOf(name), writable: true, configurable: true, enumerable: false });
}

// `process.env` is what a program would find in its environment; no other part of `process` is here.
const environment = {};
defineProperty(globals, "process", { value: { env: environment }, writable: true, configurable: true, enumerable: false });

// What guest code set in it stays, but for what the host names.
const setEnvironment = (given) => {
  const names = ownKeys(given);
  for (let at = 0; at < names.length; at++) {
    const name = names[at];
    defineProperty(environment, name, plain({ value: given[name], enumerable: true, writable: true, configurable: true }));
  }
};
