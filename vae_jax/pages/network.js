"use strict";
// The forward pass of the library's dense and convolutional networks, over typed arrays. No browser is needed.
//
// A network is {layers, linear, output}: a chain of layers, a dense layer from the inputs to the end of the chain or
// null, and the activation of their sum. An array is {float16}: little-endian numbers in base64, row by row.

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Bytes of a text in base64; `atob` exists in browsers alone. */
function bytesOf(text) {
  const values = new Uint8Array(128);
  for (let i = 0; i < 64; i++) values[BASE64.charCodeAt(i)] = i;
  const length = (text.length / 4) * 3 - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);
  const bytes = new Uint8Array(length);
  for (let i = 0, j = 0; i < text.length; i += 4, j += 3) {
    const four =
      (values[text.charCodeAt(i)] << 18) |
      (values[text.charCodeAt(i + 1)] << 12) |
      (values[text.charCodeAt(i + 2)] << 6) |
      values[text.charCodeAt(i + 3)];
    bytes[j] = four >> 16;
    bytes[j + 1] = four >> 8; // writes beyond the end are ignored
    bytes[j + 2] = four;
  }
  return bytes;
}

/** The finite float16 numbers in bytes, as float32. */
function numbersOf(bytes) {
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    numbers[i] = bits >> 15 ? -size : size;
  }
  return numbers;
}

/** The network, or any other tree, with Float32Arrays in place of the encoded arrays. */
function withArrays(tree) {
  if (tree === null || typeof tree !== "object") return tree;
  if (tree.float16 !== undefined) return numbersOf(bytesOf(tree.float16));
  if (Array.isArray(tree)) return tree.map(withArrays);
  return Object.fromEntries(Object.entries(tree).map(([name, part]) => [name, withArrays(part)]));
}

/**
 * Adds x[from, from + n) @ kernel [n, m] to y.
 *
 * Four rows of the kernel are added at once, so that y is read and written a quarter as often. Rows whose input is 0,
 * as half of them are after a ReLU, are left out.
 */
function addProduct(x, from, n, kernel, m, y) {
  const rows = new Int32Array(n + 3); // the last four may be filled up by row 0 with a weight of 0
  const weights = new Float32Array(n + 3);
  let count = 0;
  for (let i = 0; i < n; i++) {
    if (x[from + i] === 0) continue;
    rows[count] = i * m;
    weights[count++] = x[from + i];
  }
  for (let i = 0; i < count; i += 4) {
    const [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
    const [p, q, r, s] = [weights[i], weights[i + 1], weights[i + 2], weights[i + 3]];
    for (let j = 0; j < m; j++) {
      y[j] += p * kernel[a + j] + q * kernel[b + j] + r * kernel[c + j] + s * kernel[d + j];
    }
  }
}

/** Calls visit(position of a pixel, part of its patch) for the 4 x 4 pixels that the pixel (i, j) of the half reaches. */
function forPatch(i, j, height, width, visit) {
  for (let a = 0; a < 4; a++) {
    const row = 2 * i + a - 1;
    if (row < 0 || row >= height) continue;
    for (let b = 0; b < 4; b++) {
      const column = 2 * j + b - 1;
      if (column >= 0 && column < width) visit(row * width + column, 4 * a + b);
    }
  }
}

const sigmoid = (a) => 1 / (1 + Math.exp(-a));

/** Functions of one number, by the names that layers.py gives them. */
const ACTIVATIONS = {
  identity: (a) => a,
  relu: (a) => Math.max(a, 0),
  tanh: Math.tanh,
  sigmoid,
  softplus: (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a))),
  silu: (a) => a * sigmoid(a),
  gelu: (a) => a * sigmoid(1.5957691216057308 * (a + 0.044715 * a ** 3)), // 2 sqrt(2 / pi)
  elu: (a) => (a > 0 ? a : Math.expm1(a)),
  continuousBernoulliMean: (a) => (Math.abs(a) < 0.01 ? 0.5 + a / 12 : 0.5 + 0.5 / Math.tanh(a / 2) - 1 / a),
};

/** Functions of a layer and its inputs, by the kind of layer. Images are [height, width, channels]. */
const LAYERS = {
  activation: (layer, x) => x.map(ACTIVATIONS[layer.name]),

  dense(layer, x) {
    const y = layer.bias.slice();
    addProduct(x, 0, x.length, layer.kernel, y.length, y);
    return y;
  },

  /** The first half of the inputs times the sigmoid of the second. */
  gate(layer, x) {
    const half = x.length / 2;
    return x.subarray(0, half).map((linear, i) => linear * sigmoid(x[half + i]));
  },

  /** 4 x 4 transposed convolution of stride 2, [h, w, F] -> [2 h, 2 w, C]; the kernel is [F, 4, 4, C]. */
  upsample(layer, x) {
    const { height, width, bias, kernel } = layer; // of the outputs
    const channels = bias.length;
    const features = (4 * x.length) / (height * width);
    const y = new Float32Array(height * width * channels);
    for (let i = 0; i < y.length; i += channels) y.set(bias, i);
    const patch = new Float32Array(16 * channels);
    for (let i = 0, from = 0; i < height / 2; i++) {
      for (let j = 0; j < width / 2; j++, from += features) {
        patch.fill(0);
        addProduct(x, from, features, kernel, patch.length, patch);
        forPatch(i, j, height, width, (pixel, part) => {
          for (let c = 0; c < channels; c++) y[pixel * channels + c] += patch[part * channels + c];
        });
      }
    }
    return y;
  },

  /** 4 x 4 convolution of stride 2, [2 h, 2 w, C] -> [h, w, F]; the kernel is [4, 4, C, F]. */
  downsample(layer, x) {
    const { height, width, bias, kernel } = layer; // of the inputs
    const channels = x.length / (height * width);
    const y = new Float32Array((height / 2) * (width / 2) * bias.length);
    const patch = new Float32Array(16 * channels);
    for (let i = 0, to = 0; i < height / 2; i++) {
      for (let j = 0; j < width / 2; j++, to += bias.length) {
        patch.fill(0);
        forPatch(i, j, height, width, (pixel, part) => {
          for (let c = 0; c < channels; c++) patch[part * channels + c] = x[pixel * channels + c];
        });
        const features = y.subarray(to, to + bias.length);
        features.set(bias);
        addProduct(patch, 0, patch.length, kernel, bias.length, features);
      }
    }
    return y;
  },
};

/** Outputs of a network for the inputs; the condition, which may be empty, enters the chain of layers alone. */
function forward(network, inputs, condition = []) {
  let h = Float32Array.of(...inputs, ...condition);
  for (const layer of network.layers) h = LAYERS[layer.kind](layer, h);
  if (network.linear) {
    const linear = LAYERS.dense(network.linear, inputs);
    h = h.map((output, i) => output + linear[i]);
  }
  return h.map(ACTIVATIONS[network.output]);
}
