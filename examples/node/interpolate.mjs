// Writes the frame between two PNG images, with a model of ifrnet-deploy in ONNX Runtime.
//
// node interpolate.mjs MODEL.onnx FRAME0.png FRAME1.png OUTPUT.png [TIME]
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { PNG } from "pngjs";

/** A PNG file as a uint8 tensor (1, H, W, 3). */
function readFrame(path) {
  const { width, height, data } = PNG.sync.read(readFileSync(path));
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) rgb.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return new Tensor("uint8", rgb, [1, height, width, 3]);
}

/** Writes a uint8 tensor (1, H, W, 3) as a PNG file. */
function writeFrame(path, tensor) {
  const [, height, width] = tensor.dims;
  const png = { width, height, data: Buffer.from(tensor.data) };
  writeFileSync(path, PNG.sync.write(png, { colorType: 2, inputColorType: 2, inputHasAlpha: false }));
}

function check(holds, message) {
  if (holds) return;
  console.error(message);
  process.exit(1);
}

const [, , model, path0, path1, output, time = "0.5"] = process.argv;
check(output, "usage: node interpolate.mjs MODEL.onnx FRAME0.png FRAME1.png OUTPUT.png [TIME]");
check(time > 0 && time < 1, "TIME is not between 0 and 1");

const content = readFileSync(model);
const manifest = JSON.parse(readFileSync(`${model}.json`));
check(manifest.format_version === 1, `${model} has another format than 1: take a newer program`);
const hash = createHash("sha256").update(content).digest("hex");
check(manifest.artefact_sha256 === hash, `${model} is not the file of its manifest: build it again`);
const { io, steps_per_call, pairs_per_call, time_steps, height, width } = manifest.model;
check(io === "frames", `${model} takes floats: export it without --io float`);
check(steps_per_call * pairs_per_call === 1, `${model} takes several frames at once`);
check(time_steps === "arbitrary" || Number(time) === 0.5, `${model} knows the time 0.5 only`);

const [img0, img1] = [readFrame(path0), readFrame(path1)];
check(String(img0.dims) === String(img1.dims), "the frames have different sizes");
const fits = height === null || String(img0.dims) === String([1, height, width, 3]);
check(fits, `${model} was exported for ${height}x${width} frames`);
const session = await InferenceSession.create(content);
const timestep = new Tensor("float32", [Number(time)], [1, 1, 1, 1]);
const { imgt } = await session.run({ img0, img1, timestep });
writeFrame(output, imgt);
