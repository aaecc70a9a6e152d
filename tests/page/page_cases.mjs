// The page of fastvlm serve in headless Chromium, as a person uses it: for tools/test-page.sh.
//
//     node page_cases.mjs ADDRESS [SHOTS_DIR]
//
// NODE_PATH leads to playwright-core; CHROMIUM names the browser.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";

const { chromium } = createRequire(`${process.env.NODE_PATH}/`)("playwright-core");
const [address, shots] = process.argv.slice(2);
const images = "examples/images";
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

let browser, profile;
const problems = []; // of the page itself: errors, requests to other hosts, what the policy refused

// In the page: one event of an answer every 200 ms, as from a large model.
function slowly() {
  const atOnce = window.fetch;
  window.fetch = async (url, options) => {
    const reply = await atOnce(url, options);
    if (!String(url).includes("chat")) return reply;
    const parts = (await reply.text()).split(/(?<=\n\n)/), encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(stream) {
        await new Promise(done => setTimeout(done, 200));
        if (options.signal.aborted) stream.error(new DOMException("", "AbortError"));
        else if (parts.length) stream.enqueue(encoder.encode(parts.shift()));
        else stream.close();
      },
    });
    return new Response(body, { status: reply.status });
  };
}

async function open(options = {}, before = null) {
  const context = await browser.newContext({ viewport: { width: 900, height: 760 }, permissions: ["camera", "clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  page.on("pageerror", error => problems.push(`error: ${error.message}`));
  page.on("console", message => { if (message.type() === "error" && !/status of [45]/.test(message.text())) problems.push(`console: ${message.text()}`); });
  page.on("request", request => { if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(address)) problems.push(`request: ${request.url()}`); });
  if (before) await page.addInitScript(before);
  await page.goto(address);
  await page.waitForFunction(() => !/connecting|loading/.test(document.getElementById("model").textContent));
  return page;
}

async function ask(page, question) {
  await page.fill("#question", question);
  await page.press("#question", "Enter");
}

const answered = (page, n = 1) => page.waitForFunction(n => document.querySelectorAll(".assistant[aria-busy='false']").length >= n, n, { timeout: 60000 });
const lastAnswer = page => page.locator(".assistant .said").last().textContent();
const shot = async (page, name) => { if (shots) await page.screenshot({ path: join(shots, `${name}.png`) }); };

// Files into the page as a drop or a paste gives them.
function give(page, kind, path, name) {
  const bytes = [...readFileSync(path)];
  return page.evaluate(({ kind, bytes, name }) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    if (kind === "paste") return dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    dispatchEvent(new DragEvent("dragenter", { dataTransfer: data, bubbles: true }));
    const shown = !document.getElementById("drop").hidden;
    dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    return shown && document.getElementById("drop").hidden;
  }, { kind, bytes, name });
}

// Drops a PNG of this size, filled with a colour of half the opacity, or with noise, and asks about it: what the
// request, which is refused, carries in its place.
async function sentOf(page, width, height, noise) {
  const before = await page.locator("#attached li").count();
  await page.evaluate(async ({ width, height, noise }) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height }), c = canvas.getContext("2d");
    c.fillStyle = "rgb(200 100 50 / 0.5)";
    c.fillRect(0, 0, width, height);
    if (noise) {
      const pixels = c.getImageData(0, 0, width, height);
      for (let i = 0; i < pixels.data.length; i += 65536) crypto.getRandomValues(pixels.data.subarray(i, i + 65536));
      c.putImageData(pixels, 0, 0);
    }
    window.dropped = new File([await new Promise(done => canvas.toBlob(done))], "made.png", { type: "image/png" });
    const data = new DataTransfer();
    data.items.add(window.dropped);
    dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  }, { width, height, noise });
  await page.waitForFunction(n => document.querySelectorAll("#attached img").length > n, before);
  const sent = await page.evaluate(async () => {
    const shown = [...document.querySelectorAll("#attached img")].at(-1);
    await shown.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: shown.naturalWidth, height: shown.naturalHeight }), c = canvas.getContext("2d");
    c.drawImage(shown, 0, 0);
    const atOnce = window.fetch;
    const body = new Promise(done => {
      window.fetch = async (url, options) => { done(options.body); return new Response("{}", { status: 503 }); };
    });
    document.getElementById("composer").requestSubmit();
    const url = JSON.parse(await body).messages.at(-1).content.at(-2).image_url.url;
    window.fetch = atOnce;
    const sent = Uint8Array.from(atob(url.split(",")[1]), byte => byte.charCodeAt(0)), whole = new Uint8Array(await window.dropped.arrayBuffer());
    return {
      head: url.split(",")[0], size: [canvas.width, canvas.height], colour: [...c.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data],
      file: whole.length, same: sent.length === whole.length && sent.every((byte, i) => byte === whole[i]),
    };
  });
  await page.waitForSelector("#trouble:visible");
  return sent;
}

const cases = {
  async "a dropped image, an answer, its timings"() {
    const page = await open();
    await shot(page, "page-welcome");
    assert.ok(await give(page, "drop", `${images}/sign.png`, "sign.png"), "the drop area shows and goes");
    await page.waitForSelector("#attached img");
    await page.press("#question", "Enter"); // no words: it is described
    await answered(page);
    assert.match(await lastAnswer(page), /star/);
    assert.equal(await page.locator(".user .said").textContent(), "You: Describe the image.");
    const parts = await page.locator(".times li, .times span").allTextContents();
    for (const time of [/^vision encoder .* m?s$/, /^first token after .* m?s$/, /^\d+ tokens, [\d.]+ a second$/])
      assert.ok(parts.some(part => time.test(part)), `${time}: ${parts.join("; ")}`);
    const widths = await page.locator(".bar span").evaluateAll(list => list.map(part => part.getBoundingClientRect().width));
    assert.ok(widths.length >= 3 && widths.every(width => width >= 3), widths.join());
    await shot(page, "page-answer");
  },

  async "a second question, a second image, a new conversation"() {
    const page = await open();
    await give(page, "paste", `${images}/sign.png`, "sign.png");
    await page.waitForSelector("#attached img");
    await ask(page, "What does the text say?");
    await answered(page);
    await page.setInputFiles("#files", [`${images}/shapes.png`, `${images}/number.png`]);
    await page.waitForFunction(() => document.querySelectorAll("#attached img").length === 2);
    await page.click("#attached button >> nth=1");
    assert.equal(await page.locator("#attached li").count(), 1);
    const sent = page.waitForRequest("**/v1/chat/completions");
    await ask(page, "Describe it.");
    const messages = (await sent).postDataJSON().messages;
    assert.deepEqual(messages.map(message => message.role), ["user", "assistant", "user"]);
    assert.equal(messages[0].content.length, 2);
    assert.equal(messages[0].content[0].image_url.url, `data:image/png;base64,${readFileSync(`${images}/sign.png`).toString("base64")}`);
    await answered(page, 2);
    await page.click("#new");
    assert.equal(await page.locator("#turns li").count(), 0);
    assert.ok(await page.isVisible("#welcome"));
  },

  async "the keyboard alone"() {
    const page = await open();
    const order = [];
    for (let i = 0; i < 9; i++) {
      await page.keyboard.press("Tab");
      order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    }
    assert.deepEqual(order, ["skip", "open-settings", "choose-first", "camera-first", "draw", "choose", "camera", "question", "send"]);
    await page.focus("#draw");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#attached img");
    await page.waitForFunction(() => document.activeElement.id === "question");
    await page.keyboard.type("one\ntwo".split("\n")[0]);
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("two");
    assert.equal(await page.inputValue("#question"), "one\ntwo");
    await page.keyboard.press("Enter");
    await answered(page);
    assert.equal(await page.evaluate(() => document.activeElement.id), "question");
    assert.match(await page.textContent("#status"), /^Answer: ./);
    const names = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea, select, img")].filter(e => e.offsetParent)
      .map(e => e.ariaLabel || e.alt || e.labels?.[0]?.textContent || e.textContent.trim()));
    assert.ok(names.every(Boolean), `without a name: ${names.findIndex(name => !name)} of ${names}`);
  },

  async "stop"() {
    const page = await open({}, slowly);
    await page.setInputFiles("#files", `${images}/shapes.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What is in the picture?");
    await page.waitForFunction(() => document.querySelector(".assistant .said")?.textContent.length > 3);
    assert.ok(await page.isVisible("#stop") && !(await page.isVisible("#send")));
    await page.keyboard.press("Escape");
    await answered(page);
    assert.equal(await page.locator(".note").textContent(), "Stopped.");
    assert.ok(await page.isVisible("#send") && !(await page.isVisible("#stop")));
    await ask(page, "What is it?"); // the part that came is in the conversation
    await answered(page, 2);
  },

  async "a new conversation while an answer comes"() {
    const page = await open({}, slowly);
    await page.setInputFiles("#files", `${images}/shapes.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What is in the picture?");
    await page.waitForFunction(() => document.querySelector(".assistant .said")?.textContent.length > 3);
    await page.click("#new");
    await page.setInputFiles("#files", `${images}/sign.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What does the text say?");
    await page.waitForFunction(() => document.querySelector(".assistant .said")?.textContent.length > 3);
    assert.ok(await page.isVisible("#stop"), "the answer that was left does not end the new one");
    await answered(page);
    const sent = page.waitForRequest("**/v1/chat/completions");
    await ask(page, "What shape is it?");
    assert.deepEqual((await sent).postDataJSON().messages.map(message => message.role), ["user", "assistant", "user"]);
    await answered(page, 2);
  },

  async "large images are scaled, others are sent as they are"() {
    const page = await open();
    const large = await sentOf(page, 3000, 1500, false);
    assert.ok(large.file < 1e6, `many pixels in a small file: ${large.file}`);
    assert.deepEqual([large.head, large.size], ["data:image/jpeg;base64", [2048, 1024]]);
    assert.ok([200, 100, 50].every((want, i) => Math.abs(large.colour[i] - want) <= 4), `without alpha, not on black: ${large.colour}`);
    const small = await sentOf(page, 1024, 1024, true);
    assert.ok(small.file > 3e6, `few pixels in a large file: ${small.file}`);
    assert.deepEqual([small.head, small.size, small.same], ["data:image/png;base64", [1024, 1024], true]);
  },

  async "the camera: captions with their rate, a photo"() {
    const page = await open();
    await page.click("#camera");
    await page.waitForFunction(() => document.getElementById("video").videoWidth > 0);
    await page.click("#captions");
    await page.waitForFunction(() => /captions a second/.test(document.getElementById("rate").textContent), null, { timeout: 60000 });
    assert.ok((await page.textContent("#caption")).length > 2);
    await shot(page, "page-camera");
    await page.click("#captions");
    await page.waitForFunction(() => document.getElementById("captions").textContent === "Live captions");
    await page.click("#take");
    await page.waitForSelector("#attached img");
    assert.equal(await page.evaluate(() => document.getElementById("video").srcObject), null, "the camera is off");
    await ask(page, "Describe the image.");
    await answered(page);
  },

  async "settings reach the request and are kept"() {
    const page = await open();
    await page.click("#open-settings");
    await page.fill("#temperature", "0.7");
    await page.fill("#top_p", "0.9");
    await page.fill("#max_tokens", "33");
    await page.fill("#seed", "7");
    await page.fill("#system", "Be brief.");
    await page.fill("#schema", "{not json");
    await page.click("#done");
    assert.match(await page.textContent("#schema-problem"), /not JSON/);
    const schema = { type: "object", properties: { shape: { enum: ["star", "circle"] } }, required: ["shape"], additionalProperties: false };
    await page.fill("#schema", JSON.stringify(schema));
    await shot(page, "page-settings");
    await page.click("#done");
    await page.click("#open-settings");
    await page.fill("#temperature", "1.5");
    await page.fill("#system", "Be long.");
    await page.selectOption("#theme", "dark");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === "rgb(250, 249, 246)");
    await page.click("#open-settings");
    assert.deepEqual([await page.inputValue("#temperature"), await page.inputValue("#system")], ["0.7", "Be brief."]);
    await page.click("#reset");
    await page.click("#cancel");
    await page.reload();
    await page.waitForFunction(() => !/connecting|loading/.test(document.getElementById("model").textContent));
    await page.setInputFiles("#files", `${images}/sign.png`);
    await page.waitForSelector("#attached img");
    const sent = page.waitForRequest("**/v1/chat/completions");
    await ask(page, "What shape is it?");
    const body = (await sent).postDataJSON();
    assert.deepEqual([body.temperature, body.top_p, body.max_tokens, body.seed, body.messages[0]], [0.7, 0.9, 33, 7, { role: "system", content: "Be brief." }]);
    assert.deepEqual(body.response_format.json_schema.schema, schema);
    assert.deepEqual(body.stream_options, { include_usage: true });
    if (process.env.FV_LLGUIDANCE) {
      await answered(page);
      assert.deepEqual(JSON.parse(await page.textContent(".assistant pre.said")), { shape: "star" });
    } else await page.waitForSelector("#trouble:visible"); // no schema without the library
  },

  async "the request as a command that works"() {
    const page = await open();
    await page.setInputFiles("#files", { name: "it's a $sign`.png", mimeType: "image/png", buffer: readFileSync(`${images}/sign.png`) });
    await page.waitForSelector("#attached img");
    await ask(page, 'What does the "text" say? $HOME `id` \\n');
    await answered(page);
    await page.click("text=curl");
    await page.click("text=Copy the command");
    const command = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(command, await page.textContent(".command pre"));
    const folder = mkdtempSync(join(tmpdir(), "page-"));
    writeFileSync(join(folder, "it's a $sign`.png"), readFileSync(`${images}/sign.png`));
    const said = execFileSync("bash", ["-c", command], { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    rmSync(folder, { recursive: true });
    const text = said.split("\n").filter(line => line.startsWith("data: {")).map(line => JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "").join("");
    assert.equal(text, await lastAnswer(page));
    await page.click(".tools >> text=Copy");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text);
  },

  async "dark"() {
    const page = await open({ colorScheme: "dark" });
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(22, 24, 27)");
    await page.setInputFiles("#files", `${images}/shapes.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What is in the picture?");
    await answered(page);
    await shot(page, "page-dark");
    await page.click("#open-settings");
    await page.selectOption("#theme", "light");
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(250, 249, 246)");
  },

  async "as wide as a phone"() {
    const page = await open({ viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true });
    await page.setInputFiles("#files", `${images}/sign.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What does the text say?");
    await answered(page);
    await page.evaluate(() => scrollTo(0, 0));
    await shot(page, "page-phone");
    await ask(page, "averylongword".repeat(19));
    await answered(page, 2);
    await page.click("text=curl");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "no scrolling sideways");
    const small = await page.locator("header button:visible, .line button:visible").evaluateAll(list => list.filter(e => e.getBoundingClientRect().height < 40).length);
    assert.equal(small, 0, "buttons large enough for a finger");
    await page.click("#open-settings");
    const box = await page.locator("#settings").boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= 360, "the dialog fits");
  },

  async "what fails is said, and can be sent again"() {
    const page = await open();
    let refuse = true;
    await page.route("**/v1/chat/completions", route => (refuse
      ? route.fulfill({ status: 503, headers: { "Retry-After": "3" }, contentType: "application/json", body: JSON.stringify({ error: { message: "the queue is full" } }) })
      : route.continue()));
    await page.setInputFiles("#files", `${images}/sign.png`);
    await page.waitForSelector("#attached img");
    await ask(page, "What is it?");
    await page.waitForSelector("#trouble:visible");
    assert.equal(await page.textContent("#trouble"), "No answer: the queue is full (try again in 3 s)");
    assert.equal(await page.inputValue("#question"), "What is it?");
    refuse = false;
    await page.click("#send");
    await answered(page);
    assert.equal(await page.locator(".user").count(), 1);
    assert.ok(!(await page.isVisible("#trouble")));
    await page.setInputFiles("#files", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") });
    await page.waitForSelector("#trouble:visible");
    assert.equal(await page.textContent("#trouble"), "Not an image: notes.txt");
  },

  async "an image that is refused can be taken off"() {
    const page = await open();
    const whole = readFileSync(`${images}/sign.png`);
    await page.setInputFiles("#files", [{ name: "sign.png", mimeType: "image/png", buffer: whole }, { name: "half.png", mimeType: "image/png", buffer: whole.subarray(0, 1500) }]);
    await page.waitForFunction(() => document.querySelectorAll("#attached li").length === 2);
    await ask(page, "What does the text say?");
    await page.waitForSelector("#trouble:visible");
    assert.equal(await page.locator("#turns li").count(), 0);
    assert.equal(await page.inputValue("#question"), "What does the text say?");
    await page.click("[aria-label='Remove half.png']");
    const sent = page.waitForRequest("**/v1/chat/completions");
    await page.press("#question", "Enter");
    const { messages } = (await sent).postDataJSON();
    assert.deepEqual(messages.map(message => message.content.length), [2]);
    await answered(page);
    await page.setInputFiles("#files", Array(17).fill().map((_, i) => ({ name: `${i}.png`, mimeType: "image/png", buffer: whole })));
    await page.waitForFunction(() => document.querySelectorAll("#attached li").length === 17);
    await ask(page, "And these?");
    await page.waitForSelector("#trouble:visible");
    assert.match(await page.textContent("#trouble"), /more than 16 images/);
    assert.deepEqual([await page.locator("#attached li").count(), await page.locator(".user").count()], [17, 1]);
    await shot(page, "page-refused");
  },
};

let passed = 0, failed = 0;
profile = mkdtempSync(join(tmpdir(), "page-profile-"));
browser = await chromium.launch({ executablePath: process.env.CHROMIUM, headless: true, args: [...flags, `--disk-cache-dir=${profile}`] });
for (const [name, run] of Object.entries(cases)) {
  if (process.env.CASE && !name.includes(process.env.CASE)) continue;
  problems.length = 0;
  try {
    await run();
    assert.deepEqual(problems, []);
    passed++;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}: ${String(error.message).slice(0, 900)}`);
  }
  for (const context of browser.contexts()) await context.close();
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
