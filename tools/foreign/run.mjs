// Runs a model once: node run.mjs PACKAGE MODEL INPUTS OUTPUT
// PACKAGE: onnxruntime-node or onnxruntime-web (WebAssembly). INPUTS: JSON, by name the type, the
// dimensions and the file of raw values. OUTPUT: file for the raw values of imgt; its type and
// dimensions are printed as JSON.
import fs from "node:fs";

const [, , name, model, inputsFile, output] = process.argv;
const ort = await import(name);
ort.env.logLevel = "error";
if (name === "onnxruntime-web") ort.env.wasm.numThreads = 1;
const provider = name === "onnxruntime-web" ? "wasm" : "cpu";
const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), {
  executionProviders: [provider],
});
const arrays = { uint8: Uint8Array, float32: Float32Array };
const feeds = {};
for (const [input, { type, dims, file }] of Object.entries(JSON.parse(fs.readFileSync(inputsFile)))) {
  const bytes = new Uint8Array(fs.readFileSync(file));
  feeds[input] = new ort.Tensor(type, new arrays[type](bytes.buffer), dims);
}
const { imgt } = await session.run(feeds);
fs.writeFileSync(output, new Uint8Array(imgt.data.buffer, imgt.data.byteOffset, imgt.data.byteLength));
console.log(JSON.stringify({ type: imgt.type, dims: imgt.dims, inputs: session.inputNames }));
