// transformers.js on an exported folder: its answers about pictures against ours.
//
//   node transformers_js.mjs NODE_MODULES FOLDER DTYPE MAX_NEW_TOKENS {PICTURE QUESTION OUR_ANSWER}...
//
// The last line is "N passed, M failed". Pictures whose longer side is the encoder's need no resampling, where the
// package's library does not give Pillow's values to the last bit.
import { createRequire } from 'module';
import path from 'path';

const [modules, folder, dtype, limit, ...cases] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, 'x.js'));
const file = require.resolve('@huggingface/transformers').replace('.cjs', '.mjs');
const { AutoProcessor, AutoModelForImageTextToText, RawImage, env } = await import(file);

env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(folder)) + '/';
const id = path.basename(folder);
const processor = await AutoProcessor.from_pretrained(id);
const model = await AutoModelForImageTextToText.from_pretrained(id, { dtype, device: 'cpu' });

let passed = 0, failed = 0;
for (let i = 0; i < cases.length; i += 3) {
    const [picture, question, ours] = cases.slice(i, i + 3);
    let image = await RawImage.read(picture);
    // FastVLM pads to a square; the package's processor for this class crops.
    const side = Math.max(image.width, image.height), x = side - image.width, y = side - image.height;
    if (x + y > 0) image = await image.pad([x >> 1, x - (x >> 1), y >> 1, y - (y >> 1)]);
    const prompt = processor.apply_chat_template([{ role: 'user', content: '<image>\n' + question }], { add_generation_prompt: true });
    const inputs = await processor(image, prompt, { add_special_tokens: false });
    const output = await model.generate({ ...inputs, max_new_tokens: Number(limit), do_sample: false });
    const answer = output.slice(null, [inputs.input_ids.dims.at(-1), null]);
    const text = processor.batch_decode(answer, { skip_special_tokens: true })[0].trim();
    if (text === ours.trim()) passed++;
    else failed++;
    console.log(`  ${text === ours.trim() ? 'ok    ' : 'FAILED'}  ${path.basename(picture)}: ${JSON.stringify(text)}` +
        (text === ours.trim() ? '' : `, ours is ${JSON.stringify(ours.trim())}`));
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
