// The explainer itself: ONNX Runtime in a thread of its own, so that the page stays responsive.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";

ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

const session = ort.InferenceSession.create(new URL("./explainer.onnx", import.meta.url).href);

session.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ error: `The network cannot be loaded: ${error.message}` }),
);

onmessage = async ({ data: { id, tensor, shape, target, k, tau } }) => {
  try {
    const start = performance.now();
    const feeds = {
      image: new ort.Tensor("float32", tensor, shape),
      target: new ort.Tensor("int64", BigInt64Array.of(BigInt(target)), [1]),
    };
    for (const [name, number] of Object.entries({ k, tau })) {
      if (number !== null) feeds[name] = new ort.Tensor("float64", Float64Array.of(number), []);
    }
    const { logits, values, support } = await (await session).run(feeds);
    const milliseconds = performance.now() - start;
    const answer = { logits: logits.data, values: values.data, support: support.data };
    postMessage({ id, ...answer, milliseconds });
  } catch (error) {
    postMessage({ id, error: `The explanation failed: ${error.message}` });
  }
};
