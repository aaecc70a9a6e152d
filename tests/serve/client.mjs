// fastvlm serve with OpenAI's client for Node: client.mjs PORT IMAGE. Prints "ok".
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.FV_CLIENTS}/node/package.json`);
const { OpenAI } = require("openai");

const [port, image] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none", maxRetries: 0 });
const url = `data:image/png;base64,${readFileSync(image).toString("base64")}`;
const messages = [
    { role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: "What does the text say?" }] },
];

const answer = await client.chat.completions.create({ model: "fastvlm-demo", messages });
assert.equal(answer.choices[0].message.content, "HELLO");

let text = "", usage;
const stream = await client.chat.completions.create({
    model: "fastvlm-demo", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
}
assert.equal(text, "HELLO");
assert.equal(usage.total_tokens, answer.usage.total_tokens);

await assert.rejects(client.chat.completions.create({ model: "gpt-4o", messages }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ model: "fastvlm-demo", messages, top_p: 2 }), OpenAI.BadRequestError);
const vectors = await client.embeddings.create({ model: "fastvlm-demo", input: url });
assert.equal(vectors.data[0].embedding.length, 192);
console.log("ok");
