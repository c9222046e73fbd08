// URL and URLSearchParams after the URL Standard, for what has an authority or an opaque path.
// What is asked for is decided, and checked again, by the host: nothing here is a wall.

const DEFAULT_PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21", "file:": "" };
const isSpecial = (scheme) => Object.hasOwn(DEFAULT_PORTS, scheme);
const invalid = (text) => new TypeError(`Invalid URL: ${text}`);

const QUERY_KEEPS = /[!$%&()*+,\-./0-9:;=?@A-Z[\\\]^_`a-z{|}~]/;
const PATH_KEEPS = /[!$%&'()*+,\-./0-9:;=@A-Z[\\\]_a-z|~]/;
const USER_KEEPS = /[!$%&'()*+,\-.0-9A-Z_a-z~]/;
const OPAQUE_KEEPS = /[\x20-\x7e]/;
const FRAGMENT_KEEPS = /[!#$%&'()*+,\-./0-9:;=?@A-Z[\\\]^_a-z{|}~]/;

const percent = (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
const escapeWith = (text, keeps) => {
  let out = "";
  for (const character of text) {
    if (keeps.test(character) && character < "\x7f") out += character;
    else for (const byte of encodeText(character)) out += percent(byte);
  }
  return out;
};

const unescapeBytes = (text) => {
  const bytes = encodeText(text);
  const out = [];
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes[i] === 0x25 ? parseInt(String.fromCharCode(bytes[i + 1], bytes[i + 2]), 16) : NaN;
    const isEscape = bytes[i] === 0x25 && /^[0-9a-f]{2}$/i.test(String.fromCharCode(bytes[i + 1] ?? 0, bytes[i + 2] ?? 0));
    out.push(isEscape ? code : bytes[i]);
    if (isEscape) i += 2;
  }
  return host.decode(new Bytes(out));
};

// Punycode, RFC 3492, of one label.
const PUNY = { base: 36, min: 1, max: 26, skew: 38, damp: 700, bias: 72, first: 128 };
const adapt = (delta, count, isFirst) => {
  let rest = isFirst ? Math.floor(delta / PUNY.damp) : delta >> 1;
  rest += Math.floor(rest / count);
  let k = 0;
  for (; rest > ((PUNY.base - PUNY.min) * PUNY.max) >> 1; k += PUNY.base) rest = Math.floor(rest / (PUNY.base - PUNY.min));
  return k + Math.floor(((PUNY.base - PUNY.min + 1) * rest) / (rest + PUNY.skew));
};
const punyDigit = (digit) => String.fromCharCode(digit < 26 ? digit + 97 : digit + 22);
const punyNumber = (delta, bias) => {
  let out = "";
  let rest = delta;
  for (let k = PUNY.base; ; k += PUNY.base) {
    const least = k <= bias ? PUNY.min : k >= bias + PUNY.max ? PUNY.max : k - bias;
    if (rest < least) return out + punyDigit(rest);
    out += punyDigit(least + ((rest - least) % (PUNY.base - least)));
    rest = Math.floor((rest - least) / (PUNY.base - least));
  }
};
const punycode = (label) => {
  const points = [...label].map((character) => character.codePointAt(0));
  let out = points.filter((point) => point < 128).map((point) => String.fromCharCode(point)).join("");
  const plainCount = out.length;
  let handled = plainCount;
  if (plainCount) out += "-";
  let [next, delta, bias] = [PUNY.first, 0, PUNY.bias];
  while (handled < points.length) {
    const least = Math.min(...points.filter((point) => point >= next));
    delta += (least - next) * (handled + 1);
    next = least;
    for (const point of points) {
      if (point < next) delta++;
      if (point !== next) continue;
      out += punyNumber(delta, bias);
      bias = adapt(delta, handled + 1, handled === plainCount);
      delta = 0;
      handled++;
    }
    delta++;
    next++;
  }
  return `xn--${out}`;
};

const number = (part) => {
  if (part === "") return NaN;
  if (/^0x[0-9a-f]*$/i.test(part)) return parseInt(part.slice(2) || "0", 16);
  if (/^0[0-7]*$/.test(part)) return parseInt(part, 8);
  return /^[0-9]+$/.test(part) ? parseInt(part, 10) : NaN;
};

// An IPv4 address in any of its spellings; undefined when the last part is no number.
const ipv4 = (name) => {
  const parts = name.split(".");
  if (parts.at(-1) === "" && parts.length > 1) parts.pop();
  if (!/^([0-9]+|0x[0-9a-f]*)$/i.test(parts.at(-1))) return undefined;
  const numbers = parts.map(number);
  const last = numbers.pop();
  if (parts.length > 4 || numbers.some((one) => !(one <= 255)) || !(last < 256 ** (4 - numbers.length))) throw invalid(name);
  const value = numbers.reduce((sum, one, i) => sum + one * 256 ** (3 - i), last);
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
};

const ipv6Groups = (text) => {
  const dotted = text.match(/^(.*:)([0-9.]+)$/);
  if (dotted && dotted[2].includes(".")) {
    const bytes = dotted[2].split(".").map((one) => (/^(0|[1-9][0-9]{0,2})$/.test(one) ? Number(one) : NaN));
    if (bytes.length !== 4 || bytes.some((one) => !(one <= 255))) return undefined;
    return ipv6Groups(`${dotted[1]}${(bytes[0] * 256 + bytes[1]).toString(16)}:${(bytes[2] * 256 + bytes[3]).toString(16)}`);
  }
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  if (groups.flat().some((one) => !/^[0-9a-f]{1,4}$/i.test(one))) return undefined;
  const missing = 8 - groups.flat().length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const zeros = new Array(missing).fill("0");
  return (halves.length === 1 ? groups[0] : [...groups[0], ...zeros, ...groups[1]]).map((one) => parseInt(one, 16));
};

const ipv6 = (text) => {
  const groups = ipv6Groups(text);
  if (!groups) throw invalid(`[${text}]`);
  let [from, length] = [-1, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) [from, length] = [i, end - i];
  }
  const write = (list) => list.map((one) => one.toString(16)).join(":");
  return from < 0 ? `[${write(groups)}]` : `[${write(groups.slice(0, from))}::${write(groups.slice(from + length))}]`;
};

const parseHost = (text, special) => {
  if (text.startsWith("[")) {
    if (!text.endsWith("]")) throw invalid(text);
    return ipv6(text.slice(1, -1));
  }
  if (!special) {
    if (/[\0\t\n\r #/<>?@[\\\]^|]/.test(text)) throw invalid(text);
    return escapeWith(text, FRAGMENT_KEEPS);
  }
  const name = unescapeBytes(text).normalize("NFKC").toLowerCase().replace(/[\u3002\uff0e\uff61]/g, ".").replaceAll("\u00ad", "");
  const ascii = name.split(".").map((label) => (/^[\0-\x7f]*$/.test(label) ? label : punycode(label))).join(".");
  if (ascii === "" || /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/.test(ascii)) throw invalid(text);
  return ipv4(ascii) ?? ascii;
};

const parsePort = (text, scheme) => {
  if (!/^[0-9]*$/.test(text) || Number(text) > 65535) throw invalid(`:${text}`);
  return text === "" || `${Number(text)}` === DEFAULT_PORTS[scheme] ? "" : `${Number(text)}`;
};

const isDot = (part) => /^(\.|%2e)$/i.test(part);
const isDoubleDot = (part) => /^(\.|%2e){2}$/i.test(part);

// The parts of a path with its dots resolved; always begins with a slash.
const parsePath = (text, special, base = []) => {
  const parts = (special ? text.replaceAll("\\", "/") : text).split("/");
  const out = [...base];
  parts.forEach((part, i) => {
    const isLast = i === parts.length - 1;
    if (isDoubleDot(part)) {
      out.pop();
      if (isLast) out.push("");
    } else if (isDot(part)) {
      if (isLast) out.push("");
    } else out.push(escapeWith(part, PATH_KEEPS));
  });
  return `/${out.join("/")}`;
};

const parseAuthority = (url, text) => {
  const at = text.lastIndexOf("@");
  if (at >= 0) {
    const [user, ...password] = text.slice(0, at).split(":");
    url.username = escapeWith(user, USER_KEEPS);
    url.password = escapeWith(password.join(":"), USER_KEEPS);
  }
  const [, name, port] = text.slice(at + 1).match(/^(\[[^\]]*\]|[^:]*)(?::(.*))?$/) ?? [];
  if (name === undefined) throw invalid(text);
  url.hostname = url.protocol === "file:" && name === "" ? "" : parseHost(name, isSpecial(url.protocol));
  url.port = parsePort(port ?? "", url.protocol);
};

const cutTail = (text) => {
  const hash = text.indexOf("#");
  const beforeHash = hash < 0 ? text : text.slice(0, hash);
  const question = beforeHash.indexOf("?");
  return {
    body: question < 0 ? beforeHash : beforeHash.slice(0, question),
    query: question < 0 ? undefined : beforeHash.slice(question + 1),
    fragment: hash < 0 ? undefined : text.slice(hash + 1),
  };
};

const setTail = (url, { query, fragment }) => {
  url.search = query ? `?${escapeWith(query, QUERY_KEEPS)}` : "";
  url.hash = fragment ? `#${escapeWith(fragment, FRAGMENT_KEEPS)}` : "";
};

const parseWithScheme = (url, body) => {
  const special = isSpecial(url.protocol);
  const slashes = url.protocol === "file:" ? /^[/\\]{0,2}/ : /^[/\\]*/;
  const rest = special ? body.replace(slashes, "//").replaceAll("\\", "/") : body;
  if (!rest.startsWith("//")) {
    url.isOpaque = !rest.startsWith("/");
    url.pathname = url.isOpaque ? escapeWith(rest, OPAQUE_KEEPS) : parsePath(rest.slice(1), special);
    return;
  }
  const slash = rest.indexOf("/", 2);
  const authority = slash < 0 ? rest.slice(2) : rest.slice(2, slash);
  url.hasAuthority = true;
  parseAuthority(url, authority);
  const path = slash < 0 ? "" : rest.slice(slash + 1);
  url.pathname = slash < 0 && !special ? "" : parsePath(path, special);
};

const parseRelative = (url, base, { body, query }) => {
  for (const field of ["username", "password", "hostname", "port", "hasAuthority"]) url[field] = base[field];
  const special = isSpecial(url.protocol);
  const path = special ? body.replaceAll("\\", "/") : body;
  if (base.isOpaque) throw invalid(body);
  if (path.startsWith("//")) return parseWithScheme(url, path);
  if (path.startsWith("/")) url.pathname = parsePath(path.slice(1), special);
  else if (path === "") {
    url.pathname = base.pathname;
    if (query === undefined) url.search = base.search;
  } else url.pathname = parsePath(path, special, base.pathname.split("/").slice(1, -1));
  return undefined;
};

const emptyUrl = (protocol) => ({ protocol, username: "", password: "", hostname: "", port: "", pathname: "", search: "", hash: "", hasAuthority: false, isOpaque: false });

const parseUrl = (text, base) => {
  const trimmed = `${text}`.replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
  const tail = cutTail(trimmed);
  const scheme = tail.body.match(/^([a-z][a-z0-9+.-]*):/i);
  const protocol = scheme?.[0].toLowerCase();
  const rest = scheme ? tail.body.slice(scheme[0].length) : tail.body;
  if (scheme && !(base && protocol === base.protocol && isSpecial(protocol) && !/^[/\\]/.test(rest))) {
    const url = emptyUrl(protocol);
    setTail(url, tail);
    parseWithScheme(url, rest);
    return url;
  }
  if (!base) throw invalid(text);
  const url = emptyUrl(base.protocol);
  setTail(url, tail);
  parseRelative(url, base, { body: rest, query: tail.query });
  return url;
};

const hrefOf = (url) => {
  const user = url.username || url.password ? `${url.username}${url.password ? `:${url.password}` : ""}@` : "";
  const authority = url.hasAuthority ? `//${user}${url.hostname}${url.port ? `:${url.port}` : ""}` : "";
  const guard = !url.hasAuthority && url.pathname.startsWith("//") ? "/." : "";
  return `${url.protocol}${authority}${guard}${url.pathname}${url.search}${url.hash}`;
};

class URLSearchParams {
  #list = [];
  #changed = () => {};
  constructor(init = "", changed = undefined) {
    if (typeof changed === "function") this.#changed = changed;
    if (typeof init === "object" && init !== null) {
      const pairs = typeof init[Symbol.iterator] === "function" ? [...init] : Object.entries(init);
      this.#list = pairs.map((pair) => {
        const [name, value, ...rest] = [...pair];
        if (value === undefined || rest.length) throw new TypeError("each parameter needs a name and a value");
        return [`${name}`, `${value}`];
      });
    } else this.#list = parseQuery(`${init}`.replace(/^\?/, ""));
  }
  append(name, value) {
    this.#list.push([`${name}`, `${value}`]);
    this.#changed();
  }
  delete(name, value) {
    this.#list = this.#list.filter((pair) => pair[0] !== `${name}` || (value !== undefined && pair[1] !== `${value}`));
    this.#changed();
  }
  get(name) {
    return this.#list.find((pair) => pair[0] === `${name}`)?.[1] ?? null;
  }
  getAll(name) {
    return this.#list.filter((pair) => pair[0] === `${name}`).map((pair) => pair[1]);
  }
  has(name, value) {
    return this.#list.some((pair) => pair[0] === `${name}` && (value === undefined || pair[1] === `${value}`));
  }
  set(name, value) {
    const first = this.#list.findIndex((pair) => pair[0] === `${name}`);
    if (first < 0) return this.append(name, value);
    this.#list[first] = [`${name}`, `${value}`];
    this.#list = this.#list.filter((pair, i) => i <= first || pair[0] !== `${name}`);
    return this.#changed();
  }
  sort() {
    this.#list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#changed();
  }
  get size() {
    return this.#list.length;
  }
  forEach(callback, self) {
    for (const [name, value] of this.#list) callback.call(self, value, name, this);
  }
  *entries() {
    for (const [name, value] of this.#list) yield [name, value];
  }
  *keys() {
    for (const [name] of this.#list) yield name;
  }
  *values() {
    for (const [, value] of this.#list) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  toString() {
    return this.#list.map((pair) => pair.map(escapeForm).join("=")).join("&");
  }
}
const escapeForm = (text) => escapeWith(text, /[*\-.0-9A-Z_a-z]/).replaceAll("%20", "+");
const unescapeForm = (text) => unescapeBytes(text.replaceAll("+", " "));
const parseQuery = (text) =>
  text
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const equals = part.indexOf("=");
      return equals < 0 ? [unescapeForm(part), ""] : [unescapeForm(part.slice(0, equals)), unescapeForm(part.slice(equals + 1))];
    });

class URL {
  #url;
  #params;
  constructor(text, base) {
    this.#url = parseUrl(text, base === undefined ? undefined : parseUrl(base));
    this.#params = this.#newParams();
  }
  #newParams() {
    return new URLSearchParams(this.#url.search, () => {
      const query = `${this.#params}`;
      this.#url.search = query ? `?${query}` : "";
    });
  }
  static canParse(text, base) {
    return URL.parse(text, base) !== null;
  }
  static parse(text, base) {
    try {
      return new URL(text, base);
    } catch {
      return null;
    }
  }
  get href() {
    return hrefOf(this.#url);
  }
  set href(text) {
    this.#url = parseUrl(text);
    this.#params = this.#newParams();
  }
  get origin() {
    return isSpecial(this.#url.protocol) && this.#url.protocol !== "file:" ? `${this.#url.protocol}//${this.host}` : "null";
  }
  get protocol() {
    return this.#url.protocol;
  }
  set protocol(text) {
    const protocol = `${text}`.replace(/:.*$/, "").toLowerCase() + ":";
    if (!/^[a-z][a-z0-9+.-]*:$/.test(protocol) || isSpecial(protocol) !== isSpecial(this.#url.protocol)) return;
    this.#url.protocol = protocol;
    if (this.#url.port === DEFAULT_PORTS[protocol]) this.#url.port = "";
  }
  get username() {
    return this.#url.username;
  }
  set username(text) {
    if (this.#url.hostname) this.#url.username = escapeWith(`${text}`, USER_KEEPS);
  }
  get password() {
    return this.#url.password;
  }
  set password(text) {
    if (this.#url.hostname) this.#url.password = escapeWith(`${text}`, USER_KEEPS);
  }
  get host() {
    return this.#url.hostname + (this.#url.port ? `:${this.#url.port}` : "");
  }
  set host(text) {
    this.#change((copy) => parseAuthority(copy, `${text}`.split(/[/?#@]/)[0]));
  }
  get hostname() {
    return this.#url.hostname;
  }
  set hostname(text) {
    this.#change((copy) => {
      copy.hostname = parseHost(`${text}`.split(/[/?#@]/)[0], isSpecial(copy.protocol));
    });
  }
  get port() {
    return this.#url.port;
  }
  set port(text) {
    this.#change((copy) => {
      copy.port = parsePort(`${text}`.match(/^[0-9]*/)[0], copy.protocol);
    });
  }
  #change(how) {
    const copy = { ...this.#url };
    if (copy.isOpaque) return;
    try {
      how(copy);
      this.#url = copy;
    } catch {
      // a setter leaves what it cannot set
    }
  }
  get pathname() {
    return this.#url.pathname;
  }
  set pathname(text) {
    if (!this.#url.isOpaque) this.#url.pathname = parsePath(`${text}`.replace(/^[/\\]/, ""), isSpecial(this.#url.protocol));
  }
  get search() {
    return this.#url.search;
  }
  set search(text) {
    const query = `${text}`.replace(/^\?/, "");
    this.#url.search = query ? `?${escapeWith(query, QUERY_KEEPS)}` : "";
    this.#params = this.#newParams();
  }
  get hash() {
    return this.#url.hash;
  }
  set hash(text) {
    const fragment = `${text}`.replace(/^#/, "");
    this.#url.hash = fragment ? `#${escapeWith(fragment, FRAGMENT_KEEPS)}` : "";
  }
  get searchParams() {
    return this.#params;
  }
  toString() {
    return this.href;
  }
  toJSON() {
    return this.href;
  }
}

Object.assign(globals, { URL, URLSearchParams });
