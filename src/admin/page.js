// The status page. Everything comes from GET status, every two seconds. Data goes into the page as text only.
"use strict";

const EVERY = 2000; // ms
const HISTORY_EVERY = 5 * 1000; // ms
const RATE_OVER = 10 * 1000; // ms: requests per second are a mean over this
const STATES = { healthy: "good", probation: "wait", warming: "wait", unhealthy: "bad" };
const SYMBOLS = { good: "\u25cf", wait: "\u25d0", bad: "\u2715", quiet: "\u25cb" };
const OUTCOMES = {
  home: "at the backend whose cache it has",
  stayed: "away from home, where its cache is now",
  failover: "sent elsewhere: home was not available",
  spilled: "sent elsewhere: home was too busy",
  balanced: "no session",
  fail_open: "nobody was healthy: tried all the same",
};
/** What was seen at some times, oldest first: { at, requests: Map }. */
let samples = [];
let uptime = 0;
let lostSince = null;
let timer = 0;
let historyDue = 0;

const byId = (id) => document.getElementById(id);

function make(tag, className, role) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (role) element.setAttribute("role", role);
  return element;
}

/** Only what changed is written: screen readers and selections are left alone. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function pill(element, look, text) {
  element.dataset.look = look;
  write(element, `${SYMBOLS[look]} ${text}`);
}

// ---- numbers as people say them

const whole = (number) => number.toLocaleString("en");
const short = (number) => number.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });

function percent(part, all) {
  return all > 0 ? `${Math.round((100 * part) / all)} %` : "-";
}

/** A figure as `say` says it, or a dash while it is not known. */
function known(figure, say) {
  return figure === null || figure === undefined ? "-" : say(figure);
}

function seconds(milliseconds) {
  if (milliseconds < 1000) return `${milliseconds} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10000 ? 1 : 0)} s`;
}

function span(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [size, unit] = units.find(([size]) => seconds >= size) || [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// ---- what is worked out from the figures

function remember(status) {
  if (status.uptime_seconds < uptime) samples = []; // it was started again
  uptime = status.uptime_seconds;
  const now = performance.now();
  const requests = new Map(status.backends.map((backend) => [backend.name, backend.requests]));
  samples.push({ at: now, requests });
  samples = samples.filter((sample) => now - sample.at <= RATE_OVER);
}

/** Requests per second of one backend, or null while it is too early to say. */
function rate(name) {
  const last = samples[samples.length - 1];
  const first = samples.find((sample) => last.at - sample.at <= RATE_OVER && sample.requests.has(name));
  if (!first || last.at - first.at < EVERY / 2) return null;
  return (1000 * (last.requests.get(name) - first.requests.get(name))) / (last.at - first.at);
}

const rateText = (number) => (number === null ? "-" : number.toFixed(number < 10 ? 1 : 0));

// ---- parts of the page

function showReadiness(look, text) {
  byId("readiness").hidden = false;
  pill(byId("readiness"), look, text);
}

function showHead(status) {
  byId("main").hidden = false;
  const [look, text] = status.stopping ? ["wait", "stopping"] : status.ready ? ["good", "ready"] : ["wait", "not ready yet"];
  showReadiness(look, text);
  write(byId("about"), `version ${status.version}, up ${span(status.uptime_seconds)}`);
}

function showSaved(status) {
  const { since_start: ever, last_5m: lately } = status.affinity_saved;
  const figures = (name, tokens) => {
    write(byId(name), short(tokens.cached_prompt_tokens));
    const share = percent(tokens.cached_prompt_tokens, tokens.prompt_tokens);
    write(byId(`${name}-share`), tokens.prompt_tokens > 0 ? `(${share})` : "");
  };
  figures("saved", ever);
  figures("recent", lately);
  write(byId("saved-since"), `found in a KV cache, not computed again; of requests with a session, since the start ${span(status.uptime_seconds)} ago`);
}

function showFacts(status) {
  const { with: mine, without, invalid } = status.sessions;
  const rates = status.backends.map((backend) => rate(backend.name));
  const facts = {
    "Requests now": whole(status.requests_in_flight),
    "Requests per s": rates.includes(null) ? "-" : rateText(rates.reduce((sum, one) => sum + one, 0)),
    "Connections": whole(status.connections),
    "Sessions away": whole(status.displaced_sessions),
    "With a session": whole(mine),
    "No session": whole(without),
    "Invalid session": whole(invalid),
  };
  const list = byId("facts");
  Object.entries(facts).forEach(([name, value], index) => {
    let box = list.children[index];
    if (!box) {
      box = list.appendChild(make("div"));
      box.append(make("dt"), make("dd"));
    }
    write(box.children[0], name);
    write(box.children[1], value);
  });
}

/** What is wrong, each as { seen, advice }: what the gateway found, and what is seen from the first request on. */
function hintsFor(status) {
  const { with: mine, without, invalid } = status.sessions;
  const names = status.session_headers.join(" or ");
  const hints = [];
  if (status.backends.length > 0 && !status.backends.some(serves)) hints.push({ seen: "No backend is available.", advice: "" });
  for (const { hint, seen, advice } of status.hints) hints.push({ seen: `${seen} (${hint}).`, advice });
  for (const { name, warning } of status.backends) if (warning) hints.push({ seen: `${name}: ${warning}.`, advice: "" });
  const known = status.hints.some((one) => one.hint === "no_session");
  if (mine === 0 && without + invalid > 0 && !known) {
    hints.push({
      seen: "Affinity is not in use: no request has had a session yet.",
      advice: `Let your clients send ${names}, the same value for every turn of a session.`,
    });
  }
  if (invalid > 0 && invalid >= mine) {
    const share = percent(invalid, mine + without + invalid);
    hints.push({ seen: `${share} of requests have a session that is not valid, and are served without one.`, advice: "" });
  }
  return hints;
}

const serves = (backend) => !backend.draining && (backend.state === "healthy" || backend.state === "probation");

function showHints(status) {
  const hints = hintsFor(status);
  const box = byId("hints");
  while (box.children.length > hints.length) box.lastChild.remove();
  while (box.children.length < hints.length) {
    const banner = make("p", "banner");
    banner.append(make("strong"), make("span"));
    box.append(banner);
  }
  hints.forEach(({ seen, advice }, index) => {
    write(box.children[index].children[0], seen);
    write(box.children[index].children[1], advice);
  });
}

// ---- tables: a row for each key, made once and then kept up to date

function rows(body, items, keyOf, build, update) {
  const old = new Map(Array.from(body.children, (row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    let row = old.get(key);
    if (!row) {
      row = make("tr", "", "row");
      row.dataset.key = key;
      build(row, key);
    }
    old.delete(key);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
    update(row, item);
  });
  old.forEach((row) => row.remove());
}

function cell(row, label, className) {
  const element = row.appendChild(make("td", className, "cell"));
  if (label) element.dataset.label = label;
  return element;
}

function head(row, name) {
  const element = row.appendChild(make("th", "", "rowheader"));
  element.scope = "row";
  element.append(make("span"), make("small"));
  write(element.children[0], name);
  return element.children[1];
}

function reuseCell(row, className) {
  const element = cell(row, "Cache reuse", className);
  const rail = make("span", "rail");
  rail.setAttribute("aria-hidden", "true");
  rail.append(make("span"));
  element.append(make("span"), rail);
}

function showReuse(element, part, all) {
  write(element.children[0], percent(part, all));
  element.children[1].firstChild.style.width = all > 0 ? `${(100 * part) / all}%` : "0";
}

function buildBackend(row, name) {
  head(row, name);
  cell(row, "", "state").append(make("span", "pill"), make("span", "pill"), make("span", "pill"));
  cell(row, "In flight", "number").append(make("span"), sparkline());
  cell(row, "Requests", "number");
  cell(row, "Per second", "number");
  for (const label of ["Running", "Waiting", "KV used"]) cell(row, label, "number signal");
  cell(row, "First token", "number");
  reuseCell(row, "reuse wide");
  cell(row, "Last error", "error wide").append(make("span"), make("small"), make("small", "broken"));
  const button = cell(row, "", "wide").appendChild(make("button"));
  button.type = "button";
  button.addEventListener("click", () => drain(button, name));
}

function updateBackend(row, backend, now) {
  const [name, state, inFlight, requests, perSecond, running, waiting, kv, firstToken, reuse, error, action] = row.children;
  write(name.children[1], backend.url);
  pill(state.children[0], STATES[backend.state] || "quiet", backend.state);
  pill(state.children[1], "wait", "draining");
  state.children[1].hidden = !backend.draining;
  pill(state.children[2], "wait", "on trial");
  state.children[2].hidden = !backend.on_trial;
  write(inFlight.firstChild, whole(backend.in_flight));
  write(requests, whole(backend.requests));
  write(perSecond, rateText(rate(backend.name)));
  const signals = backend.signals || {};
  write(running, runningText(signals));
  write(waiting, known(signals.waiting, whole));
  write(kv, known(signals.kv_usage, (share) => percent(share, 1)));
  write(firstToken, known(backend.first_token, (time) => `${seconds(time.p50_ms)} / ${seconds(time.p99_ms)}`));
  showReuse(reuse, backend.cached_prompt_tokens, backend.prompt_tokens);
  error.classList.toggle("empty", !backend.last_error);
  write(error.children[0], backend.last_error || "none");
  const age = Math.max(0, (now - Date.parse(backend.last_error_at)) / 1000);
  write(error.children[1], backend.last_error_at ? `${span(age)} ago` : "");
  const broken = backend.streams_broken;
  error.children[2].hidden = !broken;
  write(error.children[2], broken === 1 ? "1 stream broken" : `${whole(broken)} streams broken`);
  const button = action.firstChild;
  write(button, backend.draining ? "Undrain" : "Drain");
  button.setAttribute("aria-label", `${button.textContent} ${backend.name}`);
}

/** What backends say of themselves has columns only where one of them says anything. */
function showSignalColumns(status) {
  const some = status.backends.some((backend) => backend.signals);
  for (const element of document.querySelectorAll(".signal")) element.hidden = !some;
}

function runningText({ running, slots }) {
  return slots ? `${known(running, whole)} of ${whole(slots)}` : known(running, whole);
}

function buildOutcome(row, outcome) {
  write(head(row, outcome.replace("_", " ")), OUTCOMES[outcome] || "");
  cell(row, "Requests", "number");
  cell(row, "Share", "number");
  cell(row, "Prompt tokens", "number");
  reuseCell(row, "reuse wide");
}

function updateOutcome(row, outcome, total) {
  row.classList.toggle("zero", outcome.requests === 0);
  const [, requests, share, tokens, reuse] = row.children;
  write(requests, whole(outcome.requests));
  write(share, percent(outcome.requests, total));
  write(tokens, short(outcome.prompt_tokens));
  showReuse(reuse, outcome.cached_prompt_tokens, outcome.prompt_tokens);
}

function show(status) {
  remember(status);
  showHead(status);
  showHints(status);
  showSaved(status);
  showFacts(status);
  const now = Date.parse(status.now);
  rows(byId("backends"), status.backends, (one) => one.name, buildBackend, (row, one) => updateBackend(row, one, now));
  showSignalColumns(status);
  const total = status.reuse.reduce((sum, outcome) => sum + outcome.requests, 0);
  rows(byId("outcomes"), status.reuse, (one) => one.affinity, buildOutcome, (row, one) => updateOutcome(row, one, total));
}

// ---- draining

async function drain(button, name) {
  const action = button.textContent.toLowerCase();
  const what = action === "drain"
    ? `Drain ${name}? What runs there is finished, nothing new begins there. Its sessions go elsewhere and compute their prompts again.`
    : `Undrain ${name}? It takes requests again.`;
  if (!window.confirm(what)) return;
  button.disabled = true;
  try {
    const answer = await fetch(`backends/${encodeURIComponent(name)}/${action}`, { method: "POST" });
    write(byId("said"), answer.ok ? `${name}: ${action}ed.` : `${name} was not ${action}ed: the gateway answered ${answer.status}.`);
  } catch {
    write(byId("said"), `${name} was not ${action}ed: the gateway does not answer.`);
  }
  button.disabled = false;
  refresh();
}

// ---- the loop

/** The charts, which change every 15 seconds. */
async function refreshHistory() {
  const now = performance.now();
  if (now < historyDue) return;
  historyDue = now + HISTORY_EVERY;
  const answer = await fetch("history", { cache: "no-store", signal: AbortSignal.timeout(2 * EVERY) });
  if (answer.ok) showHistory(await answer.json());
}

function showLost(since) {
  const banner = byId("lost");
  banner.hidden = since === null;
  byId("main").classList.toggle("stale", since !== null);
  document.title = since === null ? "ingle" : "ingle: connection lost";
  if (since !== null) {
    write(banner, `Connection lost since ${since.toLocaleTimeString()}. What you see is from then; trying again every 2 s.`);
    showReadiness("bad", "no answer");
  }
}

/** One fetch, then another one in a while. A page that nobody sees asks for nothing. */
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(2 * EVERY) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    await refreshHistory();
    lostSince = null;
  } catch (error) {
    lostSince = lostSince || new Date();
    console.warn("no figures:", error);
  }
  showLost(lostSince);
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY);
}

document.addEventListener("visibilitychange", refresh);
refresh();
