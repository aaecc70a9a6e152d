// The page of fastvlm serve: a conversation about images over POST v1/chat/completions. No library, no
// address but the server's own.

const $ = id => document.getElementById(id);

// An element: make("button", { className: "plain", type: "button" }, "Copy", child...)
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const say = text => { $("status").textContent = text; };
const complain = text => { $("trouble").textContent = text; };

// ---- settings -------------------------------------------------------------------------------

const DEFAULTS = { temperature: 0, top_p: 1, max_tokens: 512, seed: "", system: "", schema: "", theme: "" };
const settings = { ...DEFAULTS, key: "" };

function settingsLoad() {
  try {
    const kept = JSON.parse(localStorage.getItem("fastvlm") || "{}");
    for (const name in DEFAULTS)
      if (typeof kept[name] === typeof DEFAULTS[name]) settings[name] = kept[name];
    settings.key = sessionStorage.getItem("fastvlm-key") || "";
  } catch { /* no storage: the defaults */ }
}

function settingsKeep() {
  try {
    const { key, ...kept } = settings;
    localStorage.setItem("fastvlm", JSON.stringify(kept));
    sessionStorage.setItem("fastvlm-key", key);
  } catch { /* no storage: until the page is closed */ }
}

function themeApply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function settingsShow(values) {
  for (const name in values) $(name).value = values[name];
  for (const name of ["temperature", "top_p"]) $(`${name}-shown`).textContent = $(name).value;
}

// What is wrong with the schema; "" when nothing is.
function schemaProblem(text) {
  if (!text.trim()) return "";
  try {
    const schema = JSON.parse(text);
    return schema && typeof schema === "object" && !Array.isArray(schema) ? "" : "The schema must be a JSON object.";
  } catch (error) {
    return `The schema is not JSON: ${error.message}`;
  }
}

function settingsTake() {
  for (const name of ["seed", "system", "schema", "theme", "key"]) settings[name] = $(name).value;
  for (const name of ["temperature", "top_p", "max_tokens"]) settings[name] = Number($(name).value);
  settingsKeep();
}

// ---- the server -----------------------------------------------------------------------------

let model = "";

const authorization = () => (settings.key ? { Authorization: `Bearer ${settings.key}` } : {});

async function modelFind() {
  for (;;) {
    let wait = 2;
    try {
      const reply = await fetch("v1/models", { headers: authorization() });
      if (reply.ok) {
        model = (await reply.json()).data[0].id;
        $("model").textContent = model;
        $("model").title = model;
        return;
      }
      wait = Number(reply.headers.get("Retry-After")) || wait;
      $("model").textContent = reply.status === 401 ? "an API key is needed: Settings" : "loading the model…";
    } catch {
      $("model").textContent = "the server cannot be reached";
    }
    await new Promise(done => setTimeout(done, wait * 1000));
  }
}

// The body of a request for these turns.
function requestOf(turns) {
  const messages = turns.map(turn => ({
    role: turn.role,
    content: turn.images?.length
      ? [...turn.images.map(image => ({ type: "image_url", image_url: { url: image.url } })), { type: "text", text: turn.text }]
      : turn.text,
  }));
  if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system });
  const body = {
    model, messages, temperature: settings.temperature, max_tokens: settings.max_tokens, stream: true, stream_options: { include_usage: true },
  };
  if (settings.top_p < 1) body.top_p = settings.top_p;
  if (settings.seed !== "") body.seed = Number(settings.seed);
  if (settings.schema.trim())
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema: JSON.parse(settings.schema) } };
  return body;
}

async function replyProblem(reply) {
  let message = `the server answered ${reply.status}`;
  try {
    message = (await reply.json()).error.message;
  } catch { /* not ours: a proxy's page */ }
  const wait = reply.headers.get("Retry-After");
  if (reply.status === 401) message += " (Settings has a field for the API key)";
  return wait ? `${message} (try again in ${wait} s)` : message;
}

// Yields the parsed events of an answer as they come.
async function* events(body, signal) {
  const reply = await fetch("v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...authorization() },
  });
  if (!reply.ok) throw new Error(await replyProblem(reply));
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// ---- images ---------------------------------------------------------------------------------

// An image with a longer side is scaled to it: the model sees about 1000 pixels. A larger file would leave no
// room for others in a request, of which servers take 32 MiB.
const SIDE = 2048, LARGE = 16e6;

const urlOf = blob => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(blob);
});

// A JPEG of at most so many pixels a side. Alpha is dropped, as the server does, not blended with black.
function jpegOf(source, width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  const c = canvas.getContext("2d");
  c.imageSmoothingQuality = "high";
  c.drawImage(source, 0, 0, canvas.width, canvas.height);
  const pixels = c.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 3; i < pixels.data.length; i += 4) pixels.data[i] = 255;
  c.putImageData(pixels, 0, 0);
  return new Promise(done => canvas.toBlob(done, "image/jpeg", 0.92));
}

// { url: data URL that is sent, name, shown: an address for <img>, or "" when the browser cannot show it }
async function imageOf(file, name) {
  let blob = file, bitmap = null;
  try {
    bitmap = await createImageBitmap(file); // upright, as the server turns it
  } catch { /* HEIC, TIFF: for the server to read */ }
  if (bitmap && (Math.max(bitmap.width, bitmap.height) > SIDE || file.size > LARGE)) {
    blob = await jpegOf(bitmap, bitmap.width, bitmap.height, SIDE);
    name = name.replace(/\.[^.]*$/, "") + ".jpg";
  }
  bitmap?.close();
  return { url: await urlOf(blob), name, shown: bitmap ? URL.createObjectURL(blob) : "" };
}

const imageView = image => (image.shown ? make("img", { src: image.shown, alt: image.name }) : make("span", { className: "blank" }, image.name));

let attached = [];

function attachedShow() {
  $("attached").replaceChildren(...attached.map(image => {
    const remove = make("button", { type: "button", ariaLabel: `Remove ${image.name}` }, "×");
    remove.onclick = () => {
      attached = attached.filter(other => other !== image);
      attachedShow();
      $("question").focus();
    };
    return make("li", {}, imageView(image), remove);
  }));
  $("question").placeholder = attached.length ? "Describe the image." : turns.length ? "Ask more about it" : "Ask about an image";
}

async function attachedAdd(file, name) {
  const image = await imageOf(file, name);
  attached.push(image); // to those that are there by now
  attachedShow();
  $("question").focus();
}

async function attach(files) {
  const readable = file => file.type.startsWith("image/") || /\.(hei[cf]|avif|tiff?|p[pgn]m)$/i.test(file.name);
  const images = [...files].filter(readable), others = [...files].filter(file => !readable(file));
  complain(others.length ? `Not an image: ${others.map(file => file.name).join(", ")}` : "");
  for (const file of images) await attachedAdd(file, file.name || "pasted.png");
  if (images.length) say(images.length === 1 ? `${images[0].name || "The image"} added` : `${images.length} images added`);
}

// A drawing like those that the demonstration model was trained on.
function drawing() {
  const canvas = make("canvas", { width: 512, height: 512 }), c = canvas.getContext("2d");
  const any = list => list[Math.floor(Math.random() * list.length)];
  c.fillStyle = any(["#ffffff", "#f2efe6", "#e4eef7"]);
  c.fillRect(0, 0, 512, 512);
  c.fillStyle = any(["#d92b2b", "#2457d6", "#1f9d4d", "#e0a100", "#7a3fc0"]);
  c.beginPath();
  const shape = any(["circle", "square", "triangle", "star"]), x = 256, y = 215, r = 140;
  if (shape === "circle") c.arc(x, y, r, 0, 7);
  else if (shape === "square") c.rect(x - r, y - r, 2 * r, 2 * r);
  else {
    const n = shape === "star" ? 10 : 3;
    for (let i = 0; i < n; i++) {
      const angle = -Math.PI / 2 + (2 * Math.PI * i) / n, radius = n === 10 && i % 2 ? r * 0.42 : r;
      c.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
  }
  c.fill();
  c.fillStyle = "#222222";
  c.font = "bold 72px sans-serif";
  c.textAlign = "center";
  c.fillText(any(["HELLO", "OPEN", "STOP", "MILK", "TAXI"]), 256, 465);
  return new Promise(done => canvas.toBlob(done, "image/png"));
}

// ---- a turn of the conversation on the page -------------------------------------------------

let turns = [];   // { role, text, images }
let running = null; // AbortController of the answer that is coming

function userShow(turn) {
  const item = make("li", { className: "turn user" });
  if (turn.images.length) item.append(make("div", { className: "images" }, ...turn.images.map(imageView)));
  item.append(make("p", { className: "said" }, make("span", { className: "unseen" }, "You: "), turn.text));
  $("turns").append(item);
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  say(button.textContent);
  setTimeout(() => { button.textContent = label; }, 1500);
}

const milliseconds = ms => (ms >= 9950 ? `${(ms / 1000).toFixed(0)} s` : ms >= 995 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`);

// Where the time of an answer went: a bar with a part for each stage, and the same as a list.
function timesShow(t, seconds) {
  const stages = [["queue", "waiting", t.queue_ms], ["image", "reading the image", t.image_ms], ["vision", t.images_cached_n && !t.vision_ms ? "image (known)" : "vision encoder", t.vision_ms],
    ["prompt", t.cache_n ? `prompt (${t.cache_n} of ${t.cache_n + t.prompt_n} tokens known)` : "prompt", t.prompt_ms], ["answer", "answer", t.predicted_ms]]
    .filter(([, , ms]) => ms >= 0.05);
  const bar = make("div", { className: "bar", ariaHidden: "true" });
  const list = make("ul", { ariaLabel: "Time taken" });
  for (const [kind, label, ms] of stages) {
    const part = make("span", { className: `s-${kind}`, title: `${label}: ${milliseconds(ms)}` });
    part.style.flexGrow = ms;
    bar.append(part);
    list.append(make("li", { className: `s-${kind}` }, `${label} ${milliseconds(ms)}`));
  }
  const rates = make("p", {}, make("span", {}, `${milliseconds(seconds * 1000)} in all`));
  if (t.first_token_ms) rates.append(make("span", {}, `first token after ${milliseconds(t.first_token_ms)}`));
  if (t.predicted_n > 1) rates.append(make("span", {}, `${t.predicted_n} tokens, ${t.predicted_per_second.toFixed(t.predicted_per_second < 100 ? 1 : 0)} a second`));
  return make("div", { className: "times" }, bar, list, rates);
}

// The request as a command that works where the images are files of these names. Inside the here-document the
// shell looks at \, $ and ` only.
function commandOf(body, asked) {
  const images = asked.flatMap(turn => turn.images ?? []);
  const file = name => `'${name.replaceAll("'", "'\\''")}'`;
  let text = JSON.stringify(body, null, 1).replace(/[\\$`]/g, "\\$&");
  for (const image of images) {
    const [head] = image.url.split(",", 1);
    text = text.replace(image.url, () => `${head},$(base64 -w0 ${file(image.name)})`);
  }
  const key = settings.key ? ' -H "Authorization: Bearer $FASTVLM_KEY"' : "";
  const url = new URL("v1/chat/completions", location.href).href;
  return `curl -N ${url} -H 'Content-Type: application/json'${key} -d @- <<JSON\n${text}\nJSON`;
}

function answerTools(item, text, command) {
  const copyAnswer = make("button", { type: "button", className: "plain" }, "Copy");
  copyAnswer.onclick = () => copy(text, copyAnswer);
  const show = make("button", { type: "button", className: "plain", ariaExpanded: "false" }, "curl");
  show.title = "The request as a command";
  const copyCommand = make("button", { type: "button", className: "soft" }, "Copy the command");
  copyCommand.onclick = () => copy(command, copyCommand);
  const panel = make("div", { className: "command", hidden: true }, make("pre", { tabIndex: 0, ariaLabel: "The request as a command" }, command), copyCommand);
  show.onclick = () => {
    panel.hidden = !panel.hidden;
    show.ariaExpanded = String(!panel.hidden);
  };
  item.append(make("div", { className: "tools" }, copyAnswer, show), panel);
}

// JSON is easier to read on several lines.
function answerFinish(said, text) {
  try {
    const value = JSON.parse(text);
    if (value && typeof value === "object") said.replaceWith(make("pre", { className: "said" }, JSON.stringify(value, null, 2)));
  } catch { /* not JSON: as it is */ }
}

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 120;
const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight });

// Asks for the answer to the turns and shows it as it comes.
async function answer() {
  const body = requestOf(turns), conversation = turns, asked = [...turns], began = performance.now();
  const said = make("p", { className: "said" });
  const item = make("li", { className: "turn assistant", ariaBusy: "true" }, said);
  let text = "", timings = null, finish = "", problem = "";
  $("turns").append(item);
  running = new AbortController();
  runningShow();
  toEnd();
  try {
    for await (const event of events(body, running.signal)) {
      const choice = event.choices?.[0], follow = nearEnd();
      text += choice?.delta?.content ?? "";
      finish = choice?.finish_reason ?? finish;
      timings = event.timings ?? timings;
      said.textContent = text;
      if (follow) toEnd();
    }
  } catch (error) {
    if (error.name === "AbortError") finish = "stopped";
    else problem = error instanceof TypeError ? "the server cannot be reached" : error.message;
  }
  if (turns !== conversation) return; // left for a new one
  running = null;
  if (problem) {
    questionRestore();
    complain(`No answer: ${problem}`);
    return;
  }
  runningShow();
  item.ariaBusy = "false";
  turns.push({ role: "assistant", text });
  answerFinish(said, text);
  if (finish === "stopped") item.append(make("p", { className: "note" }, "Stopped."));
  if (finish === "length") item.append(make("p", { className: "note" }, "Cut off: the longest answer is set in Settings."));
  if (timings) item.append(timesShow(timings, (performance.now() - began) / 1000));
  answerTools(item, text, commandOf(body, asked));
  say(finish === "stopped" ? "Stopped" : `Answer: ${text}`);
  toEnd();
}

function runningShow() {
  const focused = document.activeElement === $("send") || document.activeElement === $("stop");
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
  $("new").disabled = !turns.length;
  $("welcome").hidden = turns.length > 0;
  if (focused) $("question").focus();
}

function ask() {
  const text = $("question").value.trim() || (attached.length ? "Describe the image." : "");
  if (!text || running) return;
  complain("");
  const turn = { role: "user", text, images: attached };
  attached = [];
  turns.push(turn);
  $("question").value = "";
  questionFit();
  attachedShow();
  userShow(turn);
  answer();
}

// The last question got no answer: it goes back to where it was written, to be changed or sent again.
function questionRestore() {
  const { text, images } = turns.pop();
  [...$("turns").children].slice(-2).forEach(item => item.remove());
  attached = [...images, ...attached];
  $("question").value = [text, $("question").value].filter(Boolean).join("\n");
  questionFit();
  attachedShow();
  runningShow();
}

function conversationNew() {
  running?.abort();
  running = null;
  complain("");
  turns.flatMap(turn => turn.images ?? []).forEach(image => image.shown && URL.revokeObjectURL(image.shown));
  turns = [];
  $("turns").replaceChildren();
  attachedShow();
  runningShow();
  say("A new conversation");
  $("question").focus();
}

function questionFit() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

// ---- the camera -----------------------------------------------------------------------------

let camera = null, captions = null;

async function cameraOpen() {
  $("rate").textContent = "";
  $("caption").textContent = "";
  $("live").showModal();
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false });
    $("video").srcObject = camera;
    await $("video").play();
  } catch (error) {
    $("rate").textContent = navigator.mediaDevices
      ? `The camera cannot be used: ${error.message || error.name}.`
      : "The browser lets only pages from this machine, or over HTTPS, use the camera.";
  }
  $("take").disabled = $("captions").disabled = !camera;
}

function cameraClose() {
  captions?.abort();
  camera?.getTracks().forEach(track => track.stop());
  camera = null;
  $("video").srcObject = null;
}

function frame() {
  const video = $("video");
  return jpegOf(video, video.videoWidth, video.videoHeight, 1024);
}

// One frame after the other: the newest when the answer to the one before is complete.
async function captionsRun() {
  const times = [];
  captions = new AbortController();
  $("captions").textContent = "Stop captions";
  const { signal } = captions;
  try {
    while (!signal.aborted) {
      const began = performance.now();
      const image = { url: await urlOf(await frame()) };
      const body = requestOf([{ role: "user", text: $("live-question").value.trim() || "Describe the image.", images: [image] }]);
      body.max_tokens = Math.min(body.max_tokens, 60);
      let text = "";
      for await (const event of events(body, signal)) {
        text += event.choices?.[0]?.delta?.content ?? "";
        if (text) $("caption").textContent = text; // the one before stays until then
      }
      times.push(performance.now() - began);
      if (times.length > 5) times.shift();
      const mean = times.reduce((sum, ms) => sum + ms, 0) / times.length;
      $("rate").textContent = `${(1000 / mean).toFixed(mean < 1000 ? 1 : 2)} captions a second, ${milliseconds(mean)} each`;
    }
  } catch (error) {
    if (error.name !== "AbortError") $("rate").textContent = `No caption: ${error.message}`;
  }
  captions = null;
  $("captions").textContent = "Live captions";
}

async function photoTake() {
  const blob = await frame();
  $("live").close();
  await attachedAdd(blob, `photo-${attached.length + 1}.jpg`);
  say("Photo added");
}

// ---- what a person does ---------------------------------------------------------------------

function listen() {
  const choose = () => $("files").click();
  $("choose").onclick = $("choose-first").onclick = choose;
  $("camera").onclick = $("camera-first").onclick = cameraOpen;
  $("draw").onclick = async () => attachedAdd(await drawing(), "drawing.png");
  $("files").onchange = () => { attach($("files").files).then(() => { $("files").value = ""; }); };
  $("new").onclick = conversationNew;
  $("stop").onclick = () => running?.abort();
  $("composer").onsubmit = event => { event.preventDefault(); ask(); };
  $("question").oninput = questionFit;
  $("question").onkeydown = event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  };
  addEventListener("keydown", event => {
    if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.abort();
  });
  addEventListener("paste", event => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !document.querySelector("dialog[open]")) { event.preventDefault(); attach(files); }
  });

  let depth = 0; // dragenter and dragleave come for every element on the way
  const dragged = event => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", event => { if (dragged(event)) { depth++; $("drop").hidden = false; } });
  addEventListener("dragleave", event => { if (dragged(event) && --depth <= 0) { depth = 0; $("drop").hidden = true; } });
  addEventListener("dragover", event => { if (dragged(event)) event.preventDefault(); });
  addEventListener("drop", event => {
    if (!dragged(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    attach(event.dataTransfer.files);
  });

  $("open-settings").onclick = () => { settingsShow(settings); $("schema-problem").textContent = ""; $("settings").showModal(); };
  for (const name of ["temperature", "top_p"]) $(name).oninput = () => { $(`${name}-shown`).textContent = $(name).value; };
  $("theme").onchange = () => themeApply($("theme").value);
  $("schema").oninput = () => { $("schema-problem").textContent = ""; };
  $("reset").onclick = () => { settingsShow(DEFAULTS); themeApply(DEFAULTS.theme); };
  $("cancel").onclick = () => $("settings").close();
  $("settings").querySelector("form").onsubmit = event => {
    $("schema-problem").textContent = schemaProblem($("schema").value);
    if ($("schema-problem").textContent) { event.preventDefault(); $("schema").focus(); return; }
    const key = settings.key;
    settingsTake();
    if (key !== settings.key && !model) modelFind();
  };
  $("settings").onclose = () => {
    themeApply(settings.theme); // closed with Esc: the one before
    $("question").focus();
  };

  $("live").onclose = cameraClose;
  $("live-close").onclick = () => $("live").close();
  $("take").onclick = photoTake;
  $("captions").onclick = () => (captions ? captions.abort() : captionsRun());
}

settingsLoad();
themeApply(settings.theme);
listen();
runningShow();
attachedShow();
modelFind();
