// setTimeout and its kind: whole milliseconds, a limit on how many, nested ones at least four apart.

const TIMERS_MAX = 10000;
const NESTED_LEVEL = 5;
const NESTED_MS = 4;
const LONGEST_MS = 2 ** 31 - 1;
let timers = new NativeMap(); // id → {due, callback, rest, every, level}
let nextTimer = 1;
let level = 0;
const timerEntries = uncurry(Map.prototype.entries);
const nextEntry = uncurry(Object.getPrototypeOf(new Map().entries()).next);

const addTimer = (callback, delay, rest, repeats) => {
  if (typeof callback !== "function") throw new TypeError("a timer needs a function");
  if (mapSize(timers) >= TIMERS_MAX) throw new RangeError(`more than ${TIMERS_MAX} timers`);
  let ms = NativeNumber(delay);
  ms = ms >= 0 && ms <= LONGEST_MS ? ms - (ms % 1) : 0;
  if (level >= NESTED_LEVEL && ms < NESTED_MS) ms = NESTED_MS;
  const id = nextTimer++;
  mapSet(timers, id, plain({ due: host.now() + ms, callback, rest, every: repeats ? ms : -1, level: level + 1 }));
  return id;
};

const clearTimers = () => {
  timers = new NativeMap();
};

// The first that is due, of those the earliest; undefined when none is. Also sets `untilNext`, -1 for never.
let untilNext = -1;
const firstDue = (now) => {
  let found;
  let id = 0;
  untilNext = -1;
  const entries = timerEntries(timers);
  for (let step = nextEntry(entries); !step.done; step = nextEntry(entries)) {
    const timer = step.value[1];
    const left = timer.due - now;
    if (left <= 0 && (!found || timer.due < found.due)) {
      found = timer;
      id = step.value[0];
    }
    if (left > 0 && (untilNext < 0 || left < untilNext)) untilNext = left;
  }
  return found && [id, found];
};

// Runs one timer that is due; says whether there was one. What it throws ends the run.
const fireOne = () => {
  const now = host.now();
  const found = firstDue(now);
  if (!found) return false;
  const [id, timer] = found;
  if (timer.every < 0) mapDelete(timers, id);
  else timer.due = now + (timer.every < NESTED_MS ? NESTED_MS : timer.every);
  level = timer.level;
  try {
    apply(timer.callback, undefined, timer.rest);
  } catch (error) {
    fail(error);
  }
  level = 0;
  return true;
};

globals.setTimeout = (callback, delay = 0, ...rest) => addTimer(callback, delay, rest, false);
globals.setInterval = (callback, delay = 0, ...rest) => addTimer(callback, delay, rest, true);
globals.clearTimeout = (id) => void mapDelete(timers, id);
globals.clearInterval = globals.clearTimeout;
const runSoon = Promise.resolve();
globals.queueMicrotask = (callback) => void then(then(runSoon, () => callback()), undefined, fail);
