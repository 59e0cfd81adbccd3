// The page: it says what the person does and shows what the server tells. The games themselves run on the server.

import { drawChart } from "./charts.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["learned", "real"];
const REPLACED = 4001; // the server's word for "another page plays now"
const WASD = { KeyW: "ArrowUp", KeyA: "ArrowLeft", KeyS: "ArrowDown", KeyD: "ArrowRight" };
const SLOW = new Set(["fork", "switch", "reset", "take_over"]);
const SIGNS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Space: "␣" };

let socket = null;
let game = null; // what the server said of the environment
let status = null; // what it last said of time, film and branches
let timeline = []; // every step of this attempt, without pictures
let shown = null; // the step that is seen
let action = null; // what the person does
const held = new Set(); // keys that are down
let touched = null; // an action button that is down
let chosen = 0; // the slider that the keys move
let charts = [];

// --- talking to the server ---------------------------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = (socket = new WebSocket(`${scheme}://${location.host}/play`));
  mine.onmessage = (event) => listeners[JSON.parse(event.data).type](JSON.parse(event.data));
  mine.onclose = (event) => {
    if (mine !== socket) return;
    status = null;
    showState();
    if (event.code === REPLACED) curtain("The game was opened in another window.");
    else setTimeout(connect, 1000);
  };
}

function say(type, rest = {}) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, ...rest }));
  if (SLOW.has(type)) $("state").textContent = "working …"; // until the next update
}

const listeners = {
  hello(told) {
    game = told;
    $("curtain").hidden = true;
    document.title = `${game.id} · learned_envs`;
    $("title").textContent = game.id;
    $("subtitle").textContent = `a learned world model beside ${game.real}`;
    $("real-name").textContent = game.real;
    $("missing").textContent = game.missing_twin && `No real game here. ${game.missing_twin}`;
    document.body.className = game.kind;
    action = null;
    if (game.kind === "game") buildButtons();
    else buildSliders();
    buildCharts();
    $("films").replaceChildren();
    $("no-films").hidden = game.films.length > 0;
    game.films.forEach(listFilm);
  },
  update(told) {
    if (told.timeline) timeline = told.timeline;
    const { step } = told.moment;
    timeline.length = Math.max(step, 0);
    timeline[step] = told.moment;
    status = told.status;
    show(told.moment);
    showBranches();
    showRecording();
    if (document.activeElement !== $("speed")) showSpeed(status.speed); // it is not being moved
  },
  look(told) {
    status = told.status;
    show(told.moment);
  },
  error(told) {
    toast(told.message);
  },
  film(told) {
    listFilm(told);
    $("no-films").hidden = true;
    toast(`The film is written: ${told.path}`, true);
  },
};

function listFilm(told) {
  const link = Object.assign(document.createElement("a"), { href: told.url, textContent: told.name, download: told.name });
  const item = document.createElement("li");
  item.append(link, ` · ${told.moments} steps`);
  item.title = told.path;
  $("films").prepend(item);
}

// --- showing -------------------------------------------------------------------------------------------------------------

const number = (value) => (value == null ? "not finite" : String(Number(value.toPrecision(4))));
const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
const now = () => timeline.length - 1;
const looksBack = () => shown !== null && shown.step < now();

function show(moment) {
  shown = moment;
  for (const name of NAMES) {
    const panel = $(name);
    const view = moment[name];
    panel.querySelector("dl").hidden = !view;
    panel.querySelector(".over").textContent = view ? { "": "", terminated: "Episode over", truncated: "Time is up" }[view.end] : "";
    if (!view) continue;
    if (view.picture) panel.querySelector("img").src = view.picture;
    panel.querySelector(".score").textContent = number(view.score);
    const reward = panel.querySelector(".reward");
    reward.textContent = signed(view.reward);
    reward.className = `reward ${view.reward > 0 ? "plus" : view.reward < 0 ? "minus" : ""}`;
  }
  const slider = $("timeline");
  slider.max = now();
  slider.value = moment.step;
  $("where").textContent = looksBack() ? `step ${moment.step} of ${now()}` : `step ${moment.step}`;
  $("looking").hidden = !looksBack();
  $("seed-badge").textContent = `seed ${status.seed}`;
  showState();
  requestCharts();
}

function showState() {
  const state = !status ? "lost" : looksBack() ? "looking" : status.running ? "running" : isOver() ? "over" : "paused";
  const words = { lost: "not connected", looking: "looking back", running: "running", over: "episode over", paused: "paused" };
  $("state").dataset.state = state;
  $("state").textContent = words[state];
  $("rate").textContent = status?.running ? `${status.rate.toFixed(1)} of ${number(status.speed)} steps/s` : "";
  $("play-text").textContent = status?.running ? "Pause" : "Play";
  const lost = !status;
  for (const id of ["play", "step"]) $(id).disabled = lost || (isOver() && !looksBack());
  for (const id of ["reset", "record", "fork"]) $(id).disabled = lost;
  $("take-over").disabled = lost || !shown?.real || Boolean(timeline.at(-1)?.real?.end) || looksBack();
}

function isOver() {
  const last = timeline.at(-1);
  return Boolean(last && last.learned.end && (!last.real || last.real.end));
}

function showBranches() {
  $("no-branches").hidden = status.branches.length > 0;
  $("branches").replaceChildren(
    ...status.branches.map((branch, index) => {
      const item = document.createElement("li");
      const real = branch.real == null ? "" : ` · real ${number(branch.real)}`;
      item.append(button(`${branch.step} steps · learned ${number(branch.learned)}${real}`, () => say("switch", { branch: index })));
      item.firstChild.title = "Go on where this attempt was left";
      return item;
    }),
  );
}

function showRecording() {
  const films = status.filmed !== null;
  $("record").setAttribute("aria-pressed", films);
  $("record-text").textContent = films ? `Stop · ${status.filmed}` : status.writing ? "Writing …" : "Record";
}

function showSpeed(speed) {
  $("speed").value = (100 * Math.log(speed / 0.5)) / Math.log(game.max_speed / 0.5);
  $("speed-text").textContent = `${number(speed)}/s`;
}

function buildCharts() {
  charts = (game.values ?? []).map((name, place) => newChart(name, (view) => view.values[place]));
  if (game.kind === "problem") charts.push(newChart("reward", (view) => view.reward, true));
  $("charts").replaceChildren(...charts.map((chart) => chart.box));
}

function newChart(name, pick, rewards = false) {
  const box = document.createElement("div");
  box.className = "card chart";
  box.innerHTML = "<header><b></b><span></span></header><canvas></canvas>";
  box.querySelector("b").textContent = name;
  return { box, canvas: box.querySelector("canvas"), range: box.querySelector("span"), pick, rewards };
}

let asked = false;
function requestCharts() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (!shown || !timeline.length) return;
    const order = ["real", "learned"]; // the learned line lies on top
    const present = order.filter((name) => timeline[0][name]);
    const curves = (pick) => present.map((name) => ({ name, values: timeline.map((moment) => pick(moment[name])) }));
    const marks = timeline.filter((moment) => moment.taken_over).map((moment) => moment.step);
    const place = { cursor: shown.step, marks };
    drawChart($("scores"), curves((view) => view.score), { ...place, last: now(), inset: 8 });
    for (const { canvas, range, pick, rewards } of charts) {
      const lines = curves(pick);
      if (rewards) for (const line of lines) line.values[0] = null; // nothing was gained yet
      const [low, high] = drawChart(canvas, lines, { ...place, last: Math.max(game.horizon, now()) });
      const values = order.filter((name) => shown[name]).map((name) => `${name} ${number(pick(shown[name]))}`);
      range.textContent = `${values.join(" · ")}  [${number(low)}, ${number(high)}]`;
    }
  });
}

function toast(text, calm = false) {
  const box = $("toast");
  box.textContent = text;
  box.className = calm ? "calm" : "";
  box.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (box.hidden = true), 6000);
}

function curtain(text) {
  $("curtain-text").textContent = text;
  $("curtain").hidden = false;
}

// --- acting --------------------------------------------------------------------------------------------------------------

function button(text, act) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", act);
  return made;
}

function act(next) {
  if (JSON.stringify(next) === JSON.stringify(action)) return;
  action = next;
  say("control", { action });
}

/** The action of which most keys are held, with all of its keys down. */
function actionOfKeys() {
  let best = null;
  let most = -1;
  for (const { action: index, keys } of game.bindings) {
    for (const set of keys) {
      if (set.length > most && set.every((key) => held.has(key))) [best, most] = [index, set.length];
    }
  }
  return best ?? 0;
}

function actDiscrete() {
  act(touched ?? actionOfKeys());
  for (const [index, made] of [...$("controls").querySelectorAll("button")].entries()) {
    made.setAttribute("aria-pressed", index === action);
  }
}

function buildButtons() {
  const box = document.createElement("div");
  box.className = "actions";
  for (const { action: index, label, keys } of game.bindings) {
    const made = button(label, () => {});
    const sets = keys.filter((set) => set.length).map((set) => set.map((key) => SIGNS[key] ?? key).join(" "));
    if (sets.length) made.append(Object.assign(document.createElement("kbd"), { textContent: sets[0] }));
    made.title = sets.length ? `Hold ${sets.join(", or ")}` : "Hold no key";
    made.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // no focus: the keys stay with the game
      made.setPointerCapture(event.pointerId);
      touched = index;
      actDiscrete();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      made.addEventListener(end, () => {
        touched = null;
        actDiscrete();
      });
    }
    box.append(made);
  }
  $("controls").replaceChildren(box);
  $("hint").textContent = "Arrow keys or WASD, and space. Hold a key and press N for single steps.";
  actDiscrete();
}

function buildSliders() {
  $("controls").replaceChildren(
    ...game.sliders.map(({ label, low, high }, index) => {
      const box = document.createElement("div");
      box.className = "slider";
      box.innerHTML = '<div><b></b><output></output></div><input type="range" min="-1" max="1" step="0.01" value="0"><div><small></small><small></small></div>';
      box.querySelector("b").textContent = label;
      const [left, right] = box.querySelectorAll("small");
      [left.textContent, right.textContent] = [number(low), number(high)];
      const input = box.querySelector("input");
      input.setAttribute("aria-label", label);
      input.addEventListener("input", () => {
        chosen = index;
        actContinuous();
      });
      return box;
    }),
  );
  $("hint").textContent = "↑ ↓ choose a slider, ← → move it, with shift faster; 0 puts it in the middle.";
  chosen = Math.min(chosen, game.sliders.length - 1);
  actContinuous();
}

function actContinuous() {
  const boxes = [...$("controls").querySelectorAll(".slider")];
  const values = boxes.map((box) => Number(box.querySelector("input").value));
  for (const [index, box] of boxes.entries()) {
    const { low, high } = game.sliders[index];
    box.querySelector("output").textContent = number(low + ((values[index] + 1) * (high - low)) / 2);
    box.setAttribute("aria-current", index === chosen);
  }
  act(values);
}

function moveSlider(key, fast) {
  const inputs = $("controls").querySelectorAll("input");
  if (key === "ArrowUp" || key === "ArrowDown") {
    chosen = (chosen + (key === "ArrowUp" ? inputs.length - 1 : 1)) % inputs.length;
  } else {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const input = inputs[chosen];
    input.value = key === "Digit0" ? 0 : Number(input.value) + by * (fast ? 0.25 : 0.05);
  }
  actContinuous();
}

const look = (step) => say("look", { step: Math.min(Math.max(step, 0), now()) });

const commands = {
  play: () => say(status?.running ? "pause" : "play"),
  step: () => say("step"),
  reset: () => say("reset"),
  "take-over": () => say("take_over"),
  record: () => say("record", status.filmed === null ? { on: true } : { on: false, format: $("format").value }),
  fork: () => looksBack() && say("fork", { step: shown.step }),
  return: () => looksBack() && look(now()),
};
const KEYS = { KeyP: "play", KeyN: "step", KeyR: "reset", KeyT: "take-over", KeyM: "record", KeyF: "fork", Escape: "return" };

function onKeyDown(event) {
  if (!game || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target.matches("input[type=number], select")) return;
  if (target.matches("button") && ["Space", "Enter"].includes(event.code)) return; // reached by Tab: it is meant
  const key = WASD[event.code] ?? event.code;
  if (event.code in KEYS) {
    if (event.repeat && event.code !== "KeyN") return;
    const named = $(KEYS[event.code]);
    if (!named.disabled && status) commands[KEYS[event.code]]();
  } else if (event.code === "BracketLeft" || event.code === "BracketRight") {
    if (shown) look(shown.step + (event.code === "BracketLeft" ? -1 : 1) * (event.shiftKey ? 10 : 1));
  } else if (game.kind === "game" && (key in SIGNS || held.has(key))) {
    held.add(key);
    actDiscrete();
  } else if (game.kind === "problem" && (key.startsWith("Arrow") || key === "Digit0")) {
    moveSlider(key, event.shiftKey);
  } else {
    return;
  }
  event.preventDefault();
}

function onKeyUp(event) {
  if (held.delete(WASD[event.code] ?? event.code)) actDiscrete();
}

/** Keys that go up while another window is in front are never told: let go of all. */
function letGo() {
  if (!held.size && touched === null) return;
  held.clear();
  touched = null;
  actDiscrete();
}

for (const [id, command] of Object.entries(commands)) {
  $(id).addEventListener("click", (event) => {
    if (event.detail) event.currentTarget.blur(); // clicked: the keys go back to the game
    command();
  });
}
$("timeline").addEventListener("input", (event) => look(Number(event.target.value)));
$("speed").addEventListener("input", (event) => {
  const speed = Math.min(0.5 * (game.max_speed / 0.5) ** (event.target.value / 100), game.max_speed);
  const round = speed < 3 ? Math.max(0.5, Math.round(speed * 2) / 2) : Math.round(speed);
  showSpeed(round);
  say("speed", { value: round });
});
for (const id of ["timeline", "speed"]) $(id).addEventListener("pointerup", (event) => event.target.blur());
$("seed-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("seed").value;
  say("reset", value === "" ? {} : { seed: Number(value) });
  document.activeElement?.blur();
});
$("format").addEventListener("change", (event) => event.target.blur());
$("curtain-button").addEventListener("click", connect);
document.addEventListener("keydown", onKeyDown);
document.addEventListener("keyup", onKeyUp);
window.addEventListener("blur", letGo);
window.addEventListener("resize", requestCharts);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", requestCharts);
connect();
