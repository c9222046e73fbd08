// console: text for people and models, cut where it would never end.

const SHOWN_DEPTH = 4;
const SHOWN_ENTRIES = 100;

const quoted = (text) => stringify(text);

const show = (value, depth, seen) => {
  switch (typeof value) {
    case "string":
      return depth ? quoted(value) : value;
    case "bigint":
      return `${value}n`;
    case "symbol":
      return apply(symbolText, value, []);
    case "function":
      return `[function ${value.name || "anonymous"}]`;
    case "object":
      return value === null ? "null" : showObject(value, depth, seen);
    default:
      return `${value}`;
  }
};

const showObject = (value, depth, seen) => {
  if (value instanceof Failure) return `${value.name}: ${value.message}${depth ? "" : `\n${value.stack ?? ""}`}`.trimEnd();
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
  if (value instanceof RegExp) return `${value}`;
  if (value instanceof Promise) return "[promise]";
  if (seen.includes(value)) return "[circular]";
  if (depth >= SHOWN_DEPTH) return isArray(value) ? "[…]" : "{…}";
  const inner = [...seen, value];
  const one = (entry) => show(entry, depth + 1, inner);
  if (isArray(value) || (isView(value) && !(value instanceof DataView))) return showList(value, one);
  if (value instanceof Set) return `Set${showList([...value], one)}`;
  if (value instanceof Map) return `Map${showFields([...value].map(([key, entry]) => [one(key), entry]), one)}`;
  const fields = Object.entries(value).map(([key, entry]) => [/^[\w$]+$/.test(key) ? key : quoted(key), entry]);
  const name = value.constructor?.name;
  return `${name && name !== "Object" ? `${name} ` : ""}${showFields(fields, one)}`;
};

const more = (count) => (count > SHOWN_ENTRIES ? `, … ${count - SHOWN_ENTRIES} more` : "");
const showList = (list, one) => {
  const shown = [];
  for (let i = 0; i < list.length && i < SHOWN_ENTRIES; i++) shown.push(one(list[i]));
  return `[${shown.join(", ")}${more(list.length)}]`;
};
const showFields = (fields, one) => {
  const shown = fields.slice(0, SHOWN_ENTRIES).map(([key, entry]) => `${key}: ${one(entry)}`);
  return fields.length ? `{ ${shown.join(", ")}${more(fields.length)} }` : "{}";
};

const showSafely = (value) => {
  try {
    return show(value, 0, []);
  } catch {
    return "(a value that cannot be shown)";
  }
};

// The placeholders of the first text, as browsers and Node have them.
const format = (values) => {
  if (typeof values[0] !== "string" || !values[0].includes("%")) return values.map(showSafely).join(" ");
  let next = 1;
  const text = values[0].replace(/%[sdifjoOc%]/g, (place) => {
    if (place === "%%") return "%";
    if (next >= values.length) return place;
    const value = values[next++];
    if (place === "%c") return "";
    if (place === "%d" || place === "%f") return `${Number(value)}`;
    if (place === "%i") return `${Math.trunc(Number(value))}`;
    if (place === "%j") return toJson(value);
    return showSafely(value);
  });
  return [text, ...values.slice(next).map(showSafely)].join(" ");
};

const counts = new Map();
const started = new Map();
let indent = "";
const logger = (level) => (...values) => writeLog(level, indent + format(values));
const print = logger("log");

globals.console = {
  log: print,
  info: logger("info"),
  debug: logger("debug"),
  warn: logger("warn"),
  error: logger("error"),
  trace: (...values) => print(...values, `\n${new Failure().stack ?? ""}`),
  dir: (value) => print(value),
  table: (value) => print(value),
  assert: (holds, ...values) => {
    if (!holds) globals.console.error("Assertion failed", ...values);
  },
  count: (label = "default") => {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    print(`${label}: ${counts.get(label)}`);
  },
  countReset: (label = "default") => void counts.delete(label),
  time: (label = "default") => void started.set(label, host.now()),
  timeLog: (label = "default") => print(`${label}: ${host.now() - (started.get(label) ?? host.now())} ms`),
  timeEnd: (label = "default") => {
    globals.console.timeLog(label);
    started.delete(label);
  },
  group: (...values) => {
    if (values.length) print(...values);
    if (indent.length < 40) indent += "  ";
  },
  groupEnd: () => {
    indent = indent.slice(2);
  },
};
globals.console.groupCollapsed = globals.console.group;
